// java Put.java SHARD KEY VAL - from now on KEY has the one value VAL, whatever it had before and whoever else puts.
//
// This is the loop of a writer whose rows depend on those that are there: read the upper, read the rows, append at
// that upper, and begin anew if somebody else was faster. KEY and VAL are given as rows have them, escapes and all.
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

public class Put {
    static void put(Path shard, String key, String val) throws IOException {
        for (;;) {
            // The upper first: when somebody commits before the snapshot is opened, the append is refused.
            long upper = Long.parseUnsignedLong(Files.readString(shard.resolve("upper")).strip());
            String time = Long.toUnsignedString(upper);
            var text = new StringBuilder("begin expected_upper=" + time + " new_upper=")
                    .append(Long.toUnsignedString(upper + 1)).append('\n');
            for (String row : Files.readAllLines(shard.resolve("snapshot"))) {
                String[] f = row.split("\t", -1);
                if (f[2].equals(key))
                    text.append(String.join("\t", time, String.valueOf(-Long.parseLong(f[1])), key, f[3])).append('\n');
            }
            text.append(String.join("\t", time, "1", key, val)).append("\ncommit\n");
            try (var append = new RandomAccessFile(shard.resolve("append").toFile(), "rw")) {
                try {
                    append.write(text.toString().getBytes(StandardCharsets.UTF_8));
                    return;
                } catch (IOException e) {
                    // It has no errno, only a message in the user's language; the verdict begins with a name.
                    if (!String.valueOf(append.readLine()).startsWith("error UpperMismatch "))
                        throw e;
                }
            }
        }
    }

    public static void main(String[] args) throws IOException {
        put(Path.of(args[0]), args[1], args[2]);
    }
}
