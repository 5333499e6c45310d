package throng.bench;

import java.util.Arrays;
import org.apache.kafka.common.utils.Bytes;

/**
 * The fields of one message, a protobuf {@code throng.events.v1.Events}, that the aggregator needs: the
 * times and ids of the insertions of its ad group. Skips other kinds; creates no strings.
 */
final class EventBatch {
    private static final int FIELD_EVENTS = 1;
    private static final int FIELD_ID = 1;
    private static final int FIELD_KIND = 2;
    private static final int FIELD_AD_GROUP = 3;
    private static final int FIELD_AT_MICROS = 5;
    private static final int KIND_INSERTION = 1;

    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int BYTES = 2;
    private static final int FIXED32 = 5;

    private final byte[] data;
    private int at;

    // The current event.
    private long kind;
    private long atMicros;
    private int idFrom;
    private int idTo;
    private int groupFrom;
    private int groupTo;

    // All events so far.
    private int events;
    private int dropped;
    private long[] insertions = new long[1];
    // Start and end of each id.
    private int[] ids = new int[2];
    private int insertionCount;
    private long latestMicros = -1;
    private int firstGroupFrom;
    private int firstGroupTo;

    private EventBatch(byte[] data) {
        this.data = data;
    }

    /** Never throws: the part of an invalid message after the damage counts as one dropped event. */
    static EventBatch decode(byte[] data) {
        EventBatch batch = new EventBatch(data == null ? new byte[0] : data);
        try {
            while (batch.at < batch.data.length) {
                int tag = (int) batch.varint();
                if (tag == (FIELD_EVENTS << 3 | BYTES)) {
                    batch.event(batch.lengthDelimitedEnd());
                } else {
                    batch.skip(tag & 7);
                }
            }
        } catch (IndexOutOfBoundsException | IllegalArgumentException damaged) {
            batch.dropped++;
        }
        return batch;
    }

    /** Events of all kinds in the message. */
    int events() {
        return events;
    }

    /** Events of another ad group than that of the first event, and damage. */
    int dropped() {
        return dropped;
    }

    int insertionCount() {
        return insertionCount;
    }

    /** The time of an insertion in milliseconds, as in Kafka's timestamps. */
    long insertionMillis(int number) {
        return insertions[number] / 1000;
    }

    /** The id of an insertion. */
    Bytes insertionId(int number) {
        return Bytes.wrap(Arrays.copyOfRange(data, ids[2 * number], ids[2 * number + 1]));
    }

    /** The time of the latest event; negative if there is none. */
    long latestMillis() {
        return latestMicros < 0 ? -1 : latestMicros / 1000;
    }

    boolean isOf(Bytes adGroup) {
        byte[] name = adGroup.get();
        return Arrays.equals(data, firstGroupFrom, firstGroupTo, name, 0, name.length);
    }

    private void event(int end) {
        kind = 0;
        atMicros = 0;
        groupFrom = groupTo = idFrom = idTo = at;
        while (at < end) {
            int tag = (int) varint();
            switch (tag) {
                case FIELD_KIND << 3 | VARINT -> kind = varint();
                case FIELD_AT_MICROS << 3 | VARINT -> atMicros = varint();
                case FIELD_ID << 3 | BYTES -> {
                    idTo = lengthDelimitedEnd();
                    idFrom = at;
                    at = idTo;
                }
                case FIELD_AD_GROUP << 3 | BYTES -> {
                    groupTo = lengthDelimitedEnd();
                    groupFrom = at;
                    at = groupTo;
                }
                default -> skip(tag & 7);
            }
        }
        if (at != end) {
            throw new IllegalArgumentException("a field exceeds its event");
        }
        add();
    }

    private void add() {
        if (events++ == 0) {
            firstGroupFrom = groupFrom;
            firstGroupTo = groupTo;
        } else if (!Arrays.equals(data, groupFrom, groupTo, data, firstGroupFrom, firstGroupTo)) {
            dropped++;
            return;
        }
        latestMicros = Math.max(latestMicros, atMicros);
        if (kind == KIND_INSERTION) {
            if (insertionCount == insertions.length) {
                insertions = Arrays.copyOf(insertions, Math.max(16, 2 * insertionCount));
                ids = Arrays.copyOf(ids, 2 * insertions.length);
            }
            ids[2 * insertionCount] = idFrom;
            ids[2 * insertionCount + 1] = idTo;
            insertions[insertionCount++] = atMicros;
        }
    }

    private long varint() {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            byte next = data[at++];
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) {
                return value;
            }
        }
        throw new IllegalArgumentException("a varint of more than ten bytes");
    }

    private int lengthDelimitedEnd() {
        long length = varint();
        if (length < 0 || length > data.length - at) {
            throw new IllegalArgumentException("a field exceeds the message");
        }
        return at + (int) length;
    }

    private void skip(int wireType) {
        switch (wireType) {
            case VARINT -> varint();
            case FIXED64 -> at += 8;
            case BYTES -> at = lengthDelimitedEnd();
            case FIXED32 -> at += 4;
            default -> throw new IllegalArgumentException("wire type " + wireType);
        }
    }
}
