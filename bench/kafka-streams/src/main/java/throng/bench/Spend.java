package throng.bench;

import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;

/** Forwards the expected spend of each insertion of a message, with the time of the insertion. */
final class Spend extends ContextualFixedKeyProcessor<Bytes, EventBatch, Long> {
    private final Meter meter;
    private final long expectedMicros;
    private final boolean combine;
    private final boolean once;
    private SeenIds seen;

    /**
     * @param combine whether the insertions of a message in the same slot become one record
     * @param once whether duplicates are skipped
     */
    Spend(Meter meter, long expectedMicros, boolean combine, boolean once) {
        this.meter = meter;
        this.expectedMicros = expectedMicros;
        this.combine = combine;
        this.once = once;
    }

    @Override
    public void init(FixedKeyProcessorContext<Bytes, Long> context) {
        super.init(context);
        if (once) {
            seen = new SeenIds(context.getStateStore(SeenIds.STORE));
        }
    }

    @Override
    public void process(FixedKeyRecord<Bytes, EventBatch> message) {
        meter.begin();
        EventBatch batch = message.value();
        boolean ours = message.key() != null && batch.isOf(message.key());
        if (ours) {
            forward(message, batch);
        }
        // Forwarded records have passed the whole topology now.
        meter.count(batch.events(), ours ? batch.dropped() : Math.max(1, batch.events()));
    }

    private void forward(FixedKeyRecord<Bytes, EventBatch> message, EventBatch batch) {
        for (int number = 0; number < batch.insertionCount(); ) {
            if (!isFirst(batch, number)) {
                number++;
                continue;
            }
            long millis = batch.insertionMillis(number++);
            long spend = expectedMicros;
            while (combine
                    && number < batch.insertionCount()
                    && Slots.of(batch.insertionMillis(number)) == Slots.of(millis)) {
                if (isFirst(batch, number)) {
                    millis = Math.max(millis, batch.insertionMillis(number));
                    spend += expectedMicros;
                }
                number++;
            }
            context().forward(message.withValue(spend).withTimestamp(millis));
        }
    }

    private boolean isFirst(EventBatch batch, int number) {
        if (seen == null || seen.add(batch.insertionId(number), batch.insertionMillis(number))) {
            return true;
        }
        meter.countRepeated();
        return false;
    }
}
