// java Follow.java SHARD [FROM [SEEN]] - print the updates of a shard as they are committed, from the frontier FROM on.
//
// FROM is `now` if it is not given. SEEN is a file that keeps the upper of what was printed; when it is there already,
// it says where to go on. Exit status: 0 the shard is finished; 1 it cannot be followed, and stderr says why.
import java.io.BufferedWriter;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStreamWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

public class Follow {
    static void follow(Path shard, String from, Path seen) throws IOException {
        var rows = new StringBuilder();
        String upper = null;
        // Not System.out, which tells of no failure. In ISO-8859-1 every byte is a character and stays as it is.
        var out = new BufferedWriter(
                new OutputStreamWriter(new FileOutputStream(FileDescriptor.out), StandardCharsets.ISO_8859_1));
        try (var in = Files.newBufferedReader(shard.resolve("listen").resolve(from), StandardCharsets.ISO_8859_1)) {
            for (String line; (line = in.readLine()) != null;) {
                if (line.startsWith("begin ")) {
                    upper = line.substring(line.lastIndexOf('=') + 1);
                    rows.setLength(0);
                } else if (!line.equals("commit")) {
                    rows.append(line).append('\n'); // until the commit line the transaction may break off
                } else {
                    out.append(rows).flush();
                    if (seen == null)
                        continue;
                    // Behind the rows: whoever dies in between prints this transaction again, and loses none.
                    Path next = Path.of(seen + ".new");
                    Files.writeString(next, upper + "\n");
                    Files.move(next, seen, StandardCopyOption.ATOMIC_MOVE);
                }
            }
        }
    }

    public static void main(String[] args) throws IOException {
        Path shard = Path.of(args[0]), seen = args.length > 2 ? Path.of(args[2]) : null;
        String from = args.length > 1 ? args[1] : "now";
        try {
            follow(shard, seen != null && Files.exists(seen) ? Files.readString(seen).strip() : from, seen);
        } catch (IOException e) {
            System.err.println("Follow: " + e);
            // No errno in it: of ENODATA, when FROM is not above since, it has the words in the user's language.
            if (e.getClass() == FileSystemException.class)
                System.err.println("since is " + Files.readString(shard.resolve("since")).strip());
            System.exit(1);
        }
    }
}
