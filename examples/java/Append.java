// java Append.java SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.
//
// Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; 1 all else. The verdict of the
// shard is on stderr when it is not 0.
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.channels.Channels;
import java.nio.charset.StandardCharsets;

public class Append {
    /** The verdict: it begins with "ok " if, and only if, all of the rows were committed. */
    static String append(String shard, String expectedUpper, String newUpper, InputStream rows) throws IOException {
        IOException failure = null;
        var answer = new byte[65536];
        int length;
        // For reading too: the descriptor that takes a transaction gives the verdict on it.
        try (var file = new RandomAccessFile(shard + "/append", "rw")) {
            try {
                file.writeBytes("begin expected_upper=" + expectedUpper + " new_upper=" + newUpper + "\n");
                rows.transferTo(Channels.newOutputStream(file.getChannel()));
                file.writeBytes("commit\n");
            } catch (IOException e) {
                // It has no errno, only a message in the user's language; the verdict has both.
                failure = e;
            }
            length = file.read(answer);
        }
        var verdict = new String(answer, 0, Math.max(length, 0), StandardCharsets.UTF_8).strip();
        if (failure != null && !verdict.startsWith("error "))
            return failure.toString();
        // No failure is no proof: when the last row lacks its newline, the word commit belongs to that row.
        return verdict.isEmpty() ? "not committed: is the last row whole?" : verdict;
    }

    public static void main(String[] args) throws IOException {
        try (InputStream rows = args.length > 3 ? new FileInputStream(args[3]) : System.in) {
            var verdict = append(args[0], args[1], args[2], rows);
            if (verdict.startsWith("ok "))
                return;
            System.err.println("Append: " + verdict);
            System.exit(verdict.matches("error \\w+ errno=ESTALE .*") ? 75 : 1);
        }
    }
}
