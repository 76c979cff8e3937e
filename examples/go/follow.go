// follow SHARD [FROM [SEEN]] - print the updates of a shard as they are committed, from the frontier FROM on.
//
// FROM is `now` if it is not given. SEEN is a file that keeps the upper of what was printed; when it is there already,
// it says where to go on. Exit status: 0 the shard is finished; 1 it cannot be followed, or was not to be followed any
// longer (SIGTERM, SIGINT), and stderr says why.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// follow calls commit with the upper and the rows of each transaction, when its commit line has come: before that it
// may still break off. It returns nil when the shard is finished.
func follow(ctx context.Context, shard, from string, commit func(upper string, rows []byte) error) error {
	f, err := os.Open(filepath.Join(shard, "listen", from))
	if errors.Is(err, syscall.ENODATA) {
		since, _ := os.ReadFile(filepath.Join(shard, "since"))
		return fmt.Errorf("%w; since is %s", err, bytes.TrimSpace(since))
	} else if err != nil {
		return err
	}
	defer f.Close()
	// Open has put the file into the runtime's poller: a read that waits has no thread, and a deadline ends it.
	go func() {
		<-ctx.Done()
		f.SetReadDeadline(time.Now())
	}()

	var rows bytes.Buffer
	var lower, upper string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20) // key and val may have 16 MiB, and twice that as they are written
	for lines.Scan() {
		switch line := lines.Bytes(); {
		case bytes.HasPrefix(line, []byte("begin ")):
			if _, err := fmt.Sscanf(lines.Text(), "begin lower=%s upper=%s", &lower, &upper); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			rows.Reset()
		case string(line) == "commit":
			if err := commit(upper, rows.Bytes()); err != nil {
				return err
			}
		default:
			rows.Write(line)
			rows.WriteByte('\n')
		}
	}
	if errors.Is(lines.Err(), os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return lines.Err()
}

func run(shard, from, seen string) error {
	text, err := os.ReadFile(seen)
	if err == nil {
		from = string(bytes.TrimSpace(text))
	} else if seen != "" && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return follow(ctx, shard, from, func(upper string, rows []byte) error {
		if _, err := os.Stdout.Write(rows); err != nil || seen == "" {
			return err
		}
		// Behind the rows: whoever dies in between prints this transaction again, and loses none.
		if err := os.WriteFile(seen+".new", []byte(upper+"\n"), 0o666); err != nil {
			return err
		}
		return os.Rename(seen+".new", seen)
	})
}

func main() {
	args := [4]string{2: "now"}
	copy(args[:], os.Args)
	if err := run(args[1], args[2], args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "follow:", err)
		os.Exit(1)
	}
}
