#!/usr/bin/python3
"""Every mode of the interposed library does what shim.c promises. Usage: selftest.py SHIM.so"""
import os, struct, subprocess, sys, tempfile

SHIM = os.path.abspath(sys.argv[1])
SCRIPT = """
import os, sys, errno
os.chdir(os.environ["SHIM_DIR"])
def open_(p, f=os.O_WRONLY | os.O_CREAT): return os.open(p, f, 0o600)
log = open_("1.log")
%s
"""


def run(body, **env):
    with tempfile.TemporaryDirectory() as top:
        os.mkdir(top + "/d")
        extra = {k: v.replace("TOP", top) for k, v in env.items()}
        p = subprocess.run(["python3", "-S", "-c", SCRIPT % body], capture_output=True, text=True,
                           env={**os.environ, "SHIM_DIR": top + "/d", "LD_PRELOAD": SHIM, **extra})
        files = {}
        for base, _, names in os.walk(top):
            for n in names:
                with open(os.path.join(base, n), "rb") as f:
                    files[os.path.relpath(os.path.join(base, n), top)] = f.read()
        return p.returncode, p.stdout.split(), p.stderr, files


def want(got, expected, what):
    if got != expected:
        sys.exit(f"{what}: {got!r}, not {expected!r}")


def tell(call):
    return f"\ntry: print({call})\nexcept OSError as e: print(errno.errorcode[e.errno])\n"


WRITES = "".join(tell("os.write(log, b'abcd')") for _ in range(3))

# kill
for mode, left in (("", b"abcd"), (":before", b"abcd"), (":torn", b"abcdab"), (":after", b"abcdabcd")):
    rc, _, _, files = run(WRITES, SHIM_KILL="write-log:2" + mode)
    want((rc, files["d/1.log"]), (-9, left), "kill" + mode)
want(run(WRITES, SHIM_KILL="write-log@2*:2")[0], 0, "kill of another file")
want(run(WRITES + "os.fsync(log)", SHIM_KILL="sync-log:1:after")[0], -9, "kill at a sync")
want(run("os.mkdir('x'); os.rename('x','y'); os.rmdir('y')", SHIM_KILL="any:4")[0], -9, "kill at any")
want(run("open('/dev/fuse')", SHIM_KILL="any:3")[0], 0, "nothing to kill")
want(run("f=os.open('/dev/fuse',2)" + tell("os.write(f,b'1')"), SHIM_KILL="reply:1")[0], -9, "kill at a reply")

# fail
want(run(WRITES, SHIM_FAIL="write-log:2:ENOSPC")[1], ["4", "ENOSPC", "4"], "fail once")
want(run(WRITES, SHIM_FAIL="any:3:EIO:always")[1], ["4", "EIO", "EIO"], "fail always")
rc, out, _, files = run(WRITES, SHIM_FAIL="write-log:2:EIO:short")
want((out, files["d/1.log"]), (["4", "EIO", "4"], b"abcdababcd"), "fail short")
rc, out, _, files = run(WRITES, SHIM_FAIL="write-log:1:ENOSPC:count")
want((out, files["d/1.log"]), (["2", "ENOSPC", "4"], b"ababcd"), "fail with a count")
want(run(tell("os.fsync(log)") + tell("os.fsync(log)"), SHIM_FAIL="sync-log:1:EIO")[1], ["EIO", "None"], "fail a sync")
want(run(tell("os.posix_fallocate(log,0,9)"), SHIM_FAIL="truncate:1:ENOSPC")[1], ["ENOSPC"], "fail posix_fallocate")
want(run(tell("open_('new')") + tell("os.path.exists('new')"), SHIM_FAIL="create:2:EMFILE")[1], ["EMFILE", "False"], "fail open")
want(run(tell("os.rename('1.log','b')") + tell("os.link('1.log','c')") + tell("os.unlink('1.log')"),
         SHIM_FAIL="rename:1:EIO,link:1:EMLINK,unlink:1:EROFS")[1], ["EIO", "EMLINK", "EROFS"], "fail several")
want(run(WRITES + "r=os.open('1.log',0)" + tell("os.pread(r,9,0)"), SHIM_FAIL="read:1:EIO")[1][-1], "EIO", "fail a read")

# arm, count
want(run(tell("os.write(log,b'1')") + "os.close(os.open('../arm',os.O_CREAT))" + WRITES, SHIM_ARM="TOP/arm",
         SHIM_FAIL="write-log:1:EIO")[1], ["1", "EIO", "4", "4"], "armed")
_, _, _, files = run(WRITES + "os.kill(os.getpid(), 9)", SHIM_COUNT="TOP/count")
counts = {l.split()[0]: int(l.split()[1]) for l in files["count"].decode().splitlines()}
want((counts["write-log"], counts["create"], counts["rename"]), (3, 1, 0), "count")

# record, skip
def records(data):
    at = 0
    while at < len(data):
        op, _, time, handle, offset, a, b, n = struct.unpack_from("<IIQQQIIQ", data, at)
        at += 48
        yield op, data[at:at + a].decode(), data[at + a:at + a + b].decode(), offset, data[at + a + b:at + a + b + n]
        at += a + b + n


BODY = """
os.write(log, b'ab'); os.fsync(log); os.ftruncate(log, 9)
app = open_('./x/../app', os.O_WRONLY | os.O_CREAT | os.O_APPEND) if os.mkdir('x') is None else 0
os.writev(app, [b'12', b'3']); os.pwrite(log, b'z', 7)
d = os.open('.', 0); os.fsync(d)
os.rename('app', 'x/app', src_dir_fd=d, dst_dir_fd=d); os.unlink('x/app'); os.rmdir('x')
os.open('1.log', os.O_WRONLY | os.O_TRUNC)
"""
EXPECTED = [(2, "1.log", "", 0, b""), (3, "", "", 0, b"ab"), (5, "1.log", "", 0, b""), (6, "1.log", "", 0, b""),
            (4, "", "", 9, b""), (10, "x", "", 0, b""), (2, "app", "", 0, b""), (3, "", "", 0, b"12"),
            (3, "", "", 2, b"3"), (3, "", "", 7, b"z"), (1, ".", "", 0, b""), (5, ".", "", 1, b""),
            (6, ".", "", 1, b""), (7, "app", "x/app", 0, b""), (9, "x/app", "", 0, b""), (11, "x", "", 0, b""),
            (1, "1.log", "", 0, b""), (4, "1.log", "", 0, b"")]
rc, _, err, files = run(BODY, SHIM_RECORD="TOP/rec")
want((rc, err), (0, ""), "record")
want(list(records(files["rec"])), EXPECTED, "record")
_, _, _, files = run(BODY, SHIM_RECORD="TOP/rec", SHIM_SKIP="sync-log,sync-dir@x*")
want(sum(r[0] == 6 for r in records(files["rec"])), 1, "skip")
want(run("open('f','w')", SHIM_RECORD="TOP/rec")[0], 0, "python's own files")
rc, _, err, _ = run("import mmap; os.ftruncate(log, 9); f=os.open('1.log',2); mmap.mmap(f, 9)")
want((rc, "mapping is not modelled" in err), (-6, True), "a shared mapping")
print("shim: all modes work")
