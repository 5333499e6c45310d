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
                throw new IllegalArgumentException("unknown flag " + flag + "; there are " + new TreeSet<>(known));
            }
            if (at + 1 == arguments.length) {
                throw new IllegalArgumentException(flag + " wants a value");
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

    String text(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    /** Whether the value is {@code yes}, and not {@code no}. */
    boolean choice(String name, String yes, String no, String otherwise) {
        String value = text(name, otherwise);
        if (!value.equals(yes) && !value.equals(no)) {
            throw new IllegalArgumentException("--" + name + " is " + yes + " or " + no);
        }
        return value.equals(yes);
    }

    long number(String name, String otherwise) {
        long value = Long.parseLong(otherwise == null ? text(name) : text(name, otherwise));
        if (value < 0) {
            throw new IllegalArgumentException("--" + name + " is not negative");
        }
        return value;
    }
}
