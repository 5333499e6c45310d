package throng.bench;

import java.time.Duration;
import java.util.Map;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Deduplicates events with Kafka's usual pattern: a window store of ids with a changelog topic. A duplicate
 * has the same id and time, so one lookup by both finds it.
 */
final class SeenIds {
    static final String STORE = "seen-ids";
    private static final byte[] SEEN = {1};

    private final WindowStore<Bytes, byte[]> store;

    SeenIds(WindowStore<Bytes, byte[]> store) {
        this.store = store;
    }

    /** The store, which keeps each id for this time after the time of its event. */
    static StoreBuilder<WindowStore<Bytes, byte[]>> builder(Duration retention) {
        return Stores.windowStoreBuilder(
                        Stores.persistentWindowStore(STORE, retention, Duration.ofSeconds(1), false),
                        Serdes.Bytes(),
                        Serdes.ByteArray())
                .withLoggingEnabled(Map.of());
    }

    /** True for the first event with this id and time; false for duplicates. */
    boolean add(Bytes id, long millis) {
        if (store.fetch(id, millis) != null) {
            return false;
        }
        store.put(id, SEEN, millis);
        return true;
    }
}
