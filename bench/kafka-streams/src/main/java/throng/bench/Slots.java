package throng.bench;

import java.time.Duration;

/** Time in slots of 10 seconds. What was inserted in the last 18 of them is in flight. */
final class Slots {
    static final Duration LENGTH = Duration.ofSeconds(10);
    static final int IN_FLIGHT = 18;
    static final Duration HORIZON = LENGTH.multipliedBy(IN_FLIGHT);

    private Slots() {}

    /** The slot's number, from 1970 on. */
    static long of(long millis) {
        return Math.floorDiv(millis, LENGTH.toMillis());
    }
}
