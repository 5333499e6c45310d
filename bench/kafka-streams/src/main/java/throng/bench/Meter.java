package throng.bench;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** Wall-clock and CPU time from the first to the last expected event. Shared by all threads. */
final class Meter {
    private final OperatingSystemMXBean system =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    private final long expected;
    private final AtomicLong events = new AtomicLong();
    private final AtomicLong dropped = new AtomicLong();
    private final AtomicLong repeated = new AtomicLong();
    private final CountDownLatch done = new CountDownLatch(1);
    private volatile Reading first;
    private volatile Reading last;

    private record Reading(long nanos, long cpuNanos, long events) {}

    Meter(long expected) {
        this.expected = expected;
    }

    /** Called before each message is processed. */
    void begin() {
        if (first == null) {
            synchronized (this) {
                if (first == null) {
                    first = reading(0);
                }
            }
        }
    }

    /** Called after each message is processed. */
    void count(int eventCount, long droppedCount) {
        if (droppedCount > 0) {
            dropped.addAndGet(droppedCount);
        }
        long now = events.addAndGet(eventCount);
        if (now >= expected && now - eventCount < expected) {
            last = reading(now);
            done.countDown();
        }
    }

    /** Called for each duplicate. */
    void countRepeated() {
        repeated.incrementAndGet();
    }

    /** Waits for the last event. False if no event arrives for this time, or the wait was cancelled. */
    boolean await(long idleSeconds) throws InterruptedException {
        long before = -1;
        while (!done.await(idleSeconds, TimeUnit.SECONDS)) {
            long now = events.get();
            if (now == before) {
                return false;
            }
            before = now;
        }
        return last != null;
    }

    void cancel() {
        done.countDown();
    }

    long events() {
        return events.get();
    }

    /** The results as one line of JSON. */
    String report(long lateOrDropped) {
        double wall = (last.nanos - first.nanos) / 1e9;
        double cpu = (last.cpuNanos - first.cpuNanos) / 1e9;
        return String.format(
                Locale.ROOT,
                "{\"events\":%d,\"wall_seconds\":%.3f,\"cpu_seconds\":%.3f,"
                        + "\"events_per_core_second\":%.0f,\"max_rss_mb\":%d,\"late_or_dropped\":%d,"
                        + "\"repeated\":%d}",
                last.events, wall, cpu, last.events / cpu, maxRssKib() / 1024,
                dropped.get() + lateOrDropped, repeated.get());
    }

    private Reading reading(long eventCount) {
        return new Reading(System.nanoTime(), system.getProcessCpuTime(), eventCount);
    }

    /** Zero on systems without /proc. */
    private static long maxRssKib() {
        try (var lines = Files.lines(Path.of("/proc/self/status"))) {
            return lines.filter(line -> line.startsWith("VmHWM:"))
                    .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")))
                    .findFirst()
                    .orElse(0);
        } catch (IOException unknown) {
            return 0;
        }
    }
}
