package throng.bench;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Produces insertions: messages of protobuf Events, keyed by ad group. */
public final class Produce {
    private static final Set<String> FLAGS =
            Set.of(
                    "bootstrap",
                    "topic",
                    "events",
                    "batch",
                    "ad-groups",
                    "partitions",
                    "places",
                    "copies",
                    "span-seconds");

    private Produce() {}

    public static void main(String[] arguments) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        try {
            run(new Flags(arguments, FLAGS));
        } catch (IllegalArgumentException invalid) {
            System.err.println(invalid.getMessage());
            System.exit(2);
        }
    }

    private static void run(Flags flags) throws Exception {
        long events = flags.number("events", null);
        int batch = (int) Math.max(1, flags.number("batch", "1"));
        int adGroups = (int) Math.max(1, flags.number("ad-groups", "1000"));
        // 0: the times of production. Otherwise the times are distributed over the last seconds.
        long spanMicros = flags.number("span-seconds", "0") * 1_000_000;
        Map<String, Integer> partitions = partitions(flags.text("places", ""));
        // Sends each message several times, like a producer that retries after a lost response.
        long copies = Math.max(1, flags.number("copies", "1"));
        createTopic(flags);

        long started = System.nanoTime();
        SplittableRandom random = new SplittableRandom();
        long spanFrom = nowMicros() - spanMicros;
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (var producer = new KafkaProducer<byte[], byte[]>(settings(flags))) {
            for (long sent = 0; sent < events; sent += batch) {
                int count = (int) Math.min(batch, events - sent);
                String name = name(random.nextInt(adGroups));
                byte[] adGroup = name.getBytes(StandardCharsets.UTF_8);
                long at =
                        spanMicros == 0
                                ? nowMicros()
                                : spanFrom + (long) ((double) sent / events * spanMicros);
                byte[] message = message(random, adGroup, at, count);
                var partition = partitions.get(name);
                var entry = new ProducerRecord<>(flags.text("topic"), partition, adGroup, message);
                for (long copy = 0; copy < copies; copy++) {
                    producer.send(
                            entry,
                            (done, failed) -> {
                                if (failed != null) {
                                    failure.set(failed);
                                }
                            });
                }
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
        double seconds = (System.nanoTime() - started) / 1e9;
        System.out.printf(Locale.ROOT, "{\"events\":%d,\"wall_seconds\":%.3f}%n", events, seconds);
    }

    private static Properties settings(Flags flags) {
        Properties settings = new Properties();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, flags.text("bootstrap"));
        settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class);
        settings.put(ProducerConfig.LINGER_MS_CONFIG, 20);
        settings.put(ProducerConfig.BATCH_SIZE_CONFIG, 256 << 10);
        settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
        return settings;
    }

    private static void createTopic(Flags flags) throws ExecutionException, InterruptedException {
        Properties settings = new Properties();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, flags.text("bootstrap"));
        // -1 replicas: the broker's default. No retention: the records have times in the past.
        NewTopic topic =
                new NewTopic(flags.text("topic"), (int) flags.number("partitions", "8"), (short) -1)
                        .configs(Map.of(TopicConfig.RETENTION_MS_CONFIG, "-1"));
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(topic)).all().get();
        } catch (ExecutionException failure) {
            if (!(failure.getCause() instanceof TopicExistsException)) {
                throw failure;
            }
        }
    }

    /** The partition of each ad group, from a file of "name partition" lines; without a file, the client's. */
    private static Map<String, Integer> partitions(String file) throws IOException {
        Map<String, Integer> partitions = new HashMap<>();
        if (!file.isEmpty()) {
            for (String line : Files.readAllLines(Path.of(file))) {
                String[] parts = line.split(" ");
                partitions.put(parts[0], Integer.valueOf(parts[1]));
            }
        }
        return partitions;
    }

    private static String name(int adGroup) {
        return String.format(Locale.ROOT, "ad-group-%04d", adGroup);
    }

    private static long nowMicros() {
        return TimeUnit.MILLISECONDS.toMicros(System.currentTimeMillis());
    }

    private static byte[] message(SplittableRandom random, byte[] adGroup, long at, int count) {
        var message = new ByteArrayOutputStream(count * 72);
        var event = new ByteArrayOutputStream(72);
        HexFormat hex = HexFormat.of();
        for (int number = 0; number < count; number++) {
            String id = hex.toHexDigits(random.nextLong()) + hex.toHexDigits(random.nextLong());
            event.reset();
            bytes(event, 1, id.getBytes(StandardCharsets.US_ASCII));
            // Kind: insertion.
            event.write(2 << 3);
            event.write(1);
            bytes(event, 3, adGroup);
            event.write(5 << 3);
            varint(event, at);
            bytes(message, 1, event.toByteArray());
        }
        return message.toByteArray();
    }

    private static void bytes(ByteArrayOutputStream to, int field, byte[] value) {
        to.write(field << 3 | 2);
        varint(to, value.length);
        to.writeBytes(value);
    }

    private static void varint(ByteArrayOutputStream to, long value) {
        long rest = value;
        while ((rest & ~0x7fL) != 0) {
            to.write((int) (rest & 0x7f | 0x80));
            rest >>>= 7;
        }
        to.write((int) rest);
    }
}
