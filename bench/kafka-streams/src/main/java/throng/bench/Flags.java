package throng.bench;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/** Command-line flags: {@code --name value}. */
final class Flags {
    private final Map<String, String> values = new HashMap<>();

    /** @throws IllegalArgumentException if a flag is not one of {@code known}, or has no value */
    Flags(String[] arguments, Set<String> known) {
        for (int at = 0; at < arguments.length; at += 2) {
            String flag = arguments[at];
            if (!flag.startsWith("--") || !known.contains(flag.substring(2))) {
                throw new IllegalArgumentException("unknown flag " + flag + "; known flags: " + new TreeSet<>(known));
            }
            if (at + 1 == arguments.length) {
                throw new IllegalArgumentException(flag + " requires a value");
            }
            values.put(flag.substring(2), arguments[at + 1]);
        }
    }

    String text(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    String text(String name, String defaultValue) {
        return values.getOrDefault(name, defaultValue);
    }

    /** Whether the value is {@code yes}; the only other value is {@code no}. */
    boolean choice(String name, String yes, String no, String defaultValue) {
        String value = text(name, defaultValue);
        if (!value.equals(yes) && !value.equals(no)) {
            throw new IllegalArgumentException("--" + name + " must be " + yes + " or " + no);
        }
        return value.equals(yes);
    }

    long number(String name, String defaultValue) {
        long value = Long.parseLong(defaultValue == null ? text(name) : text(name, defaultValue));
        if (value < 0) {
            throw new IllegalArgumentException("--" + name + " must not be negative");
        }
        return value;
    }
}
