package throng.bench;

import java.time.Duration;

/** Time in slots of 10 seconds. Insertions of the last 18 slots are in flight. */
final class Slots {
    static final Duration LENGTH = Duration.ofSeconds(10);
    static final int IN_FLIGHT = 18;
    static final Duration HORIZON = LENGTH.multipliedBy(IN_FLIGHT);

    private Slots() {}

    /** The number of the slot since 1970. */
    static long of(long millis) {
        return Math.floorDiv(millis, LENGTH.toMillis());
    }
}
