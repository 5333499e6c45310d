package throng.bench;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;
import org.apache.kafka.streams.state.WindowStore;

/** In-flight spend per ad group in Kafka Streams. Ends after a number of events, and prints the results. */
public final class SpendAggregator {
    private static final String STORE = "expected-spend";
    /** The largest lateness of an event. */
    private static final Duration GRACE = Slots.HORIZON;
    private static final Set<String> FLAGS =
            Set.of(
                    "bootstrap", "input", "output", "application-id", "threads", "window", "events",
                    "store", "combine", "once", "cache-mb", "expected-micros", "state-dir",
                    "idle-seconds");

    private final Flags flags;
    private final Meter meter;

    private SpendAggregator(Flags flags) {
        this.flags = flags;
        this.meter = new Meter(flags.number("events", null));
    }

    public static void main(String[] arguments) throws Exception {
        configureLogging();
        int exit = 2;
        try {
            exit = new SpendAggregator(new Flags(arguments, FLAGS)).run();
        } catch (IllegalArgumentException invalid) {
            System.err.println(invalid.getMessage());
        }
        // A thread of a client that hangs must not keep the process running.
        System.exit(exit);
    }

    /** Must be called before the first logger is created. */
    private static void configureLogging() {
        String level = "org.slf4j.simpleLogger.defaultLogLevel";
        String logger = "org.slf4j.simpleLogger.log.org.apache.kafka.streams.";
        System.setProperty(level, "warn");
        // Late events are counted: a log line for each would cost more than the event.
        System.setProperty(logger + "kstream.internals.KStreamWindowAggregate", "error");
        // It warns that a temporary folder may be lost, which is intended here.
        System.setProperty(logger + "processor.internals.StateDirectory", "error");
    }

    private int run() throws Exception {
        Optional<Path> temporary =
                flags.text("state-dir", "").isEmpty()
                        ? Optional.of(Files.createTempDirectory("spend-aggregator-"))
                        : Optional.empty();
        try {
            createOutput();
            String stateDir = temporary.map(Path::toString).orElseGet(() -> flags.text("state-dir"));
            return aggregate(new KafkaStreams(topology(), settings(stateDir)));
        } finally {
            if (temporary.isPresent()) {
                Utils.delete(temporary.get().toFile());
            }
        }
    }

    private int aggregate(KafkaStreams streams) throws InterruptedException {
        streams.setUncaughtExceptionHandler(
                failure -> {
                    failure.printStackTrace();
                    meter.cancel();
                    return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
        streams.start();
        boolean complete = meter.await(flags.number("idle-seconds", "60"));
        // Before the close: the metrics of the tasks are removed with them.
        long late = droppedByStreams(streams);
        // Flushes the cache, so that the output is complete before the results are printed.
        streams.close(Duration.ofSeconds(60));
        if (!complete) {
            System.err.println("ended after " + meter.events() + " events: no more events arrived");
            return 1;
        }
        System.out.println(meter.report(late));
        return 0;
    }

    private Topology topology() {
        Serde<EventBatch> events =
                Serdes.serdeFrom(
                        (topic, batch) -> {
                            throw new UnsupportedOperationException("events are not serialized");
                        },
                        (topic, data) -> EventBatch.decode(data));
        boolean tumbling = flags.choice("window", "tumbling", "hopping", "tumbling");
        boolean combine = flags.choice("combine", "true", "false", "false");
        boolean once = flags.choice("once", "true", "false", "false");
        boolean rocksdb = flags.choice("store", "rocksdb", "memory", "rocksdb");
        // As in Throng's benchmarks: a price of 130,001 micros, and an impression rate of 0.8.
        long expected = flags.number("expected-micros", "104001");

        TimeWindows windows =
                tumbling
                        ? TimeWindows.ofSizeAndGrace(Slots.LENGTH, GRACE)
                        : TimeWindows.ofSizeAndGrace(Slots.HORIZON, GRACE).advanceBy(Slots.LENGTH);
        var store =
                Materialized.<Bytes, Long, WindowStore<Bytes, byte[]>>as(STORE)
                        .withKeySerde(Serdes.Bytes())
                        .withValueSerde(Serdes.Long())
                        .withStoreType(
                                rocksdb
                                        ? BuiltInDslStoreSuppliers.ROCKS_DB
                                        : BuiltInDslStoreSuppliers.IN_MEMORY)
                        .withRetention(Slots.HORIZON.plus(GRACE))
                        .withCachingEnabled();

        StreamsBuilder builder = new StreamsBuilder();
        if (once) {
            builder.addStateStore(SeenIds.builder(Slots.HORIZON.plus(GRACE)));
        }
        String[] stores = once ? new String[] {SeenIds.STORE} : new String[0];
        // Keys stay unchanged bytes: no strings are created, and nothing is repartitioned.
        var changed =
                builder.stream(
                                flags.text("input"),
                                Consumed.with(Serdes.Bytes(), events)
                                        .withTimestampExtractor(
                                                (message, before) ->
                                                        time((EventBatch) message.value(), message.timestamp())))
                        .processValues(() -> new Spend(meter, expected, combine, once), stores)
                        .groupByKey(Grouped.with(Serdes.Bytes(), Serdes.Long()))
                        .windowedBy(windows)
                        .reduce(Long::sum, store)
                        .toStream();
        var inFlight =
                tumbling
                        ? changed.process(() -> new InFlight.OfTumbling(STORE), STORE)
                        : changed.process(InFlight.OfHopping::new);
        inFlight.to(flags.text("output"), Produced.with(Serdes.Bytes(), Serdes.Long()));
        return builder.build();
    }

    /** Stream time is that of the events, not that of the append to the topic. */
    private static long time(EventBatch batch, long written) {
        return batch.latestMillis() < 0 ? written : batch.latestMillis();
    }

    private Properties settings(String stateDir) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, flags.text("application-id"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, flags.text("bootstrap"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, stateDir);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, (int) flags.number("threads", "2"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        settings.put(
                StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG,
                flags.number("cache-mb", "256") << 20);
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        // Fewer, larger steps between the consumer and the tasks.
        settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 5000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
        settings.put(
                StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        return settings;
    }

    /** Creates the output topic with as many partitions as the input: brokers may not create topics. */
    private void createOutput() throws ExecutionException, InterruptedException {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, flags.text("bootstrap"));
        String input = flags.text("input");
        try (Admin admin = Admin.create(settings)) {
            int partitions =
                    admin.describeTopics(List.of(input)).allTopicNames().get().get(input).partitions().size();
            var output = new NewTopic(flags.text("output"), Optional.of(partitions), Optional.empty());
            admin.createTopics(List.of(output)).all().get();
        } catch (ExecutionException failure) {
            if (!(failure.getCause() instanceof TopicExistsException)) {
                throw failure;
            }
        }
    }

    /** Records that were too late for their window, or that Streams dropped. */
    private static long droppedByStreams(KafkaStreams streams) {
        return streams.metrics().entrySet().stream()
                .filter(metric -> metric.getKey().name().equals("dropped-records-total"))
                .mapToLong(metric -> ((Number) metric.getValue().metricValue()).longValue())
                .sum();
    }
}
