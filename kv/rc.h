/*
 * rc.h - every way a call can end: code, name, errno and sentence in one list.
 *
 * A bug in our own code is an assert. What the world can do to us (a full
 * disk, a wrong argument of a user, a byte that rotted) is one of these codes
 * plus a sentence that says what was wanted and what was found.
 *
 * The codes of all layers stand here, so that one table makes them all; kv/
 * returns only those of the first group. The errno column is read by the
 * file-system layer alone.
 *
 * Threads: a struct kv_err belongs to its caller; no function here shares data.
 */
#ifndef KV_RC_H
#define KV_RC_H

#include <errno.h>
#include <stddef.h>

#define KV_MUST_CHECK __attribute__((warn_unused_result))
#define KV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/*        code               name                        errno            sentence */
#define KV_RC_LIST(X)                                                                              \
	/* the stores */                                                                           \
	X(NOTFOUND,         "NotFound",                 ENOENT,          "nothing is stored there")          \
	X(EXISTS,           "Exists",                   EEXIST,          "it exists already")                \
	X(MISMATCH,         "Mismatch",                 ESTALE,          "another version came first")       \
	X(UNREACHABLE,      "StoreUnreachable",         ETIMEDOUT,       "the store did not answer; surely not applied") \
	X(UNKNOWN,          "OutcomeUnknown",           EIO,             "the store failed; the outcome is unknown") \
	X(IO,               "StoreFailed",              EIO,             "the store failed")                 \
	X(CORRUPT,          "Corrupt",                  EUCLEAN,         "stored bytes fail their check")    \
	X(NOSPACE,          "StoreFull",                ENOSPC,          "the store is full")                \
	X(QUOTA,            "OverQuota",                EDQUOT,          "a limit is reached")               \
	X(NOMEM,            "OutOfMemory",              ENOMEM,          "out of memory")                    \
	X(READONLY,         "ReadOnly",                 EROFS,           "the store is open for reading only") \
	X(BUSY,             "StoreBusy",                EBUSY,           "the store has another owner")      \
	X(NEWER,            "NewerFormat",              EPROTONOSUPPORT, "a newer program wrote this")       \
	X(RANGE,            "OutOfRange",               ERANGE,          "beyond the newest version")        \
	/* the engine: state of a shard */                                                         \
	X(UPPER_MISMATCH,   "UpperMismatch",            ESTALE,          "the upper is another one")         \
	X(SHARD_REPLACED,   "ShardReplaced",            ESTALE,          "the shard was removed and made anew") \
	X(NO_SHARD,         "UnknownShard",             ENOENT,          "no such shard")                    \
	X(NO_BATCH,         "UnknownBatch",             ENOENT,          "no such batch")                    \
	X(SHARD_EXISTS,     "ShardExists",              EEXIST,          "the shard exists already")         \
	X(NOT_FINISHED,     "ShardNotFinished",         ENOTEMPTY,       "the shard is not finished")        \
	X(BATCH_TAKEN,      "BatchCommitted",           ESTALE,          "a commit named the batch meanwhile") \
	X(BATCH_LOST,       "BatchIncomplete",          EIO,             "something written to the batch was lost") \
	X(BATCH_BUSY,       "BatchBusy",                EBUSY,           "the batch is open for writing")    \
	X(GONE,             "Gone",                     ESTALE,          "what was being read was removed by the store's owner") \
	X(FENCED,           "HoldFenced",               ESTALE,          "the hold has another token")       \
	X(COMPACTED,        "CompactedAway",            ENODATA,         "the time is below since")          \
	X(OVERFLOW,         "DiffOverflow",             EOVERFLOW,       "the sum of diffs leaves i64")      \
	/* the engine: invalid usage, a function of the inputs alone */                            \
	X(BAD_SYNTAX,       "BadSyntax",                EINVAL,          "not in the grammar")               \
	X(ROW_TOO_LARGE,    "RowTooLarge",              EMSGSIZE,        "key and val exceed 16 MiB")        \
	X(BAD_BOUNDS,       "InvalidBounds",            EINVAL,          "the upper lies below the lower")   \
	X(EMPTY_INTERVAL,   "InvalidEmptyTimeInterval", EINVAL,          "data in an empty interval")        \
	X(BATCH_BOUNDS,     "InvalidBatchBounds",       EINVAL,          "the append is wider than its batch") \
	X(NOT_BEYOND_LOWER, "UpdateNotBeyondLower",     EINVAL,          "an update lies below the lower")   \
	X(BEYOND_UPPER,     "UpdateBeyondUpper",        EINVAL,          "an update lies at or above the upper") \
	X(OTHER_SHARD,      "BatchNotFromThisShard",    EINVAL,          "the batch is of another shard")    \
	X(BAD_REWRITE,      "InvalidRewrite",           EINVAL,          "the rewrite does not fit the bounds") \
	X(TOKEN_REUSED,     "TokenReused",              EINVAL,          "the token stands for another append") \
	/* the mount */                                                                            \
	X(BAD_OFFSET,       "InvalidOffset",            EINVAL,          "the offset cannot be served")      \
	X(BAD_NAME,         "InvalidName",              EINVAL,          "not a name for this place")        \
	X(NO_ACCESS,        "NoPermission",             EACCES,          "no permission")                    \
	X(NOT_HERE,         "NotSupportedHere",         EPERM,           "no such operation here")           \
	X(TOO_MANY_OPEN,    "TooManyOpen",              EMFILE,          "the user has too many files open")  \
	X(ALL_TOO_MANY,     "AllTooManyOpen",           ENFILE,          "all users together have too many files open") \
	X(WOULD_BLOCK,      "WouldBlock",               EAGAIN,          "nothing to read yet")              \
	X(INTERRUPTED,      "Interrupted",              EINTR,           "interrupted")                      \
	X(SHUTDOWN,         "ShuttingDown",             ESHUTDOWN,       "the mount is shutting down")

enum kv_rc {
	KV_OK = 0,
#define KV_RC_ENUM(code, name, errnum, sentence) KV_##code,
	KV_RC_LIST(KV_RC_ENUM)
#undef KV_RC_ENUM
	KV_RC_COUNT
};

enum { KV_ERR_DETAIL_LEN = 192, KV_ERR_MSG_LEN = 384 };

/* What went wrong, for a person (msg: one sentence, no newline) and for a program (detail: words
 * `key=value` in the order they help, or empty). Fixed buffers: reporting works without memory. */
struct kv_err {
	enum kv_rc rc;
	char detail[KV_ERR_DETAIL_LEN];
	char msg[KV_ERR_MSG_LEN];
};

/* The name as printed in verdicts, the errno, the general sentence. rc: any code; KV_OK gives "Ok", 0. */
const char *kv_rc_name(enum kv_rc rc);
int kv_rc_errno(enum kv_rc rc);
const char *kv_rc_sentence(enum kv_rc rc);

/* Fill err (NULL is allowed) with rc and a sentence, no detail; returns rc, so that a failure is one line.
 * Overlong text is cut. */
enum kv_rc kv_fail(struct kv_err *err, enum kv_rc rc, const char *fmt, ...) KV_PRINTF(3, 4);

/* As kv_fail with the general sentence of rc. */
enum kv_rc kv_fail_rc(struct kv_err *err, enum kv_rc rc);

/* Set the detail words of an err filled before. */
void kv_detail(struct kv_err *err, const char *fmt, ...) KV_PRINTF(2, 3);

/* Put "context: " in front of the sentence in err; returns rc. Each layer does so at most once. */
enum kv_rc kv_wrap(struct kv_err *err, enum kv_rc rc, const char *fmt, ...) KV_PRINTF(3, 4);

/* As kv_fail, for a failed system call: ENOSPC, EDQUOT, ENOMEM, EROFS and ENOENT get their own code,
 * everything else the code `otherwise`; the errno's text is appended to the sentence. */
enum kv_rc kv_fail_errno(struct kv_err *err, int errnum, enum kv_rc otherwise, const char *fmt, ...)
	KV_PRINTF(4, 5);

#endif
