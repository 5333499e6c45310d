package throng.bench;

import java.time.Instant;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.TimestampedWindowStore;

/** Computes the in-flight spend of ad groups from their changed windows. */
final class InFlight {
    private InFlight() {}

    /**
     * For tumbling windows: the sum of the last 18. They are cached here in addition to the store, because
     * reading them from RocksDB for each update would cost more than everything else.
     */
    static final class OfTumbling extends ContextualProcessor<Windowed<Bytes>, Long, Bytes, Long> {
        private final String storeName;
        private final Map<Bytes, Ring> rings = new HashMap<>();
        private TimestampedWindowStore<Bytes, Long> store;

        OfTumbling(String storeName) {
            this.storeName = storeName;
        }

        @Override
        public void init(ProcessorContext<Bytes, Long> context) {
            super.init(context);
            store = context.getStateStore(storeName);
        }

        @Override
        public void process(Record<Windowed<Bytes>, Long> window) {
            long newest = Slots.of(context().currentStreamTimeMs());
            Bytes adGroup = window.key().key();
            Ring ring = rings.get(adGroup);
            if (ring == null) {
                ring = load(adGroup, newest);
                rings.put(adGroup, ring);
            }
            ring.set(Slots.of(window.key().window().start()), window.value());
            context().forward(window.withKey(adGroup).withValue(ring.sum(newest)));
        }

        /** Reads the windows that an earlier consumer of the partition has written. */
        private Ring load(Bytes adGroup, long newest) {
            Ring ring = new Ring();
            long slot = Slots.LENGTH.toMillis();
            Instant from = Instant.ofEpochMilli((newest - Slots.IN_FLIGHT + 1) * slot);
            Instant to = Instant.ofEpochMilli(newest * slot);
            try (var windows = store.fetch(adGroup, from, to)) {
                while (windows.hasNext()) {
                    var window = windows.next();
                    ring.set(Slots.of(window.key), window.value.value());
                }
            }
            return ring;
        }
    }

    /** For hopping windows: the window that ends with the current slot has the sum. */
    static final class OfHopping extends ContextualProcessor<Windowed<Bytes>, Long, Bytes, Long> {
        @Override
        public void process(Record<Windowed<Bytes>, Long> window) {
            long newest = Slots.of(context().currentStreamTimeMs());
            if (Slots.of(window.key().window().end()) == newest + 1) {
                context().forward(window.withKey(window.key().key()));
            }
        }
    }

    /** The last slots of an ad group. */
    private static final class Ring {
        private final long[] slots = new long[Slots.IN_FLIGHT];
        private final long[] sums = new long[Slots.IN_FLIGHT];

        void set(long slot, long sum) {
            int index = (int) (slot % Slots.IN_FLIGHT);
            // The slot of a late event may have been replaced already.
            if (slot >= slots[index]) {
                slots[index] = slot;
                sums[index] = sum;
            }
        }

        long sum(long newest) {
            long total = 0;
            for (int index = 0; index < Slots.IN_FLIGHT; index++) {
                if (slots[index] > newest - Slots.IN_FLIGHT && slots[index] <= newest) {
                    total += sums[index];
                }
            }
            return total;
        }
    }
}
