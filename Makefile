# shardfs. `make demo` and `make check` install what they lack, build and run; see README.md.

SHELL = /bin/sh
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
V ?= release
VERSION = 0.1.0
WERROR ?= 1

O = build/$(V)
# make Q= shows the commands.
Q = @

LIB_PKGS = libzstd libprotobuf-c libxxhash
PKGS = $(LIB_PKGS) fuse3 jansson libsystemd
# Packages may be missing when make only reads this file to install them, so these are asked for late.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lrocksdb -lpthread
TEST_LIBS = $(PKG_LIBS) -lcheck -lsubunit -luuid -lrt -lm
LIB_LIBS = $(shell pkg-config --libs $(LIB_PKGS) 2>/dev/null) -lrocksdb -lpthread

WARN = -Wall -Wextra -Wshadow -Wvla -Wundef -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes \
	-Wold-style-definition -Wpointer-arith -Wwrite-strings -Wcast-qual -Wswitch-enum \
	-Wimplicit-fallthrough
ifeq ($(WERROR),1)
WARN += -Werror
endif
CONV = -Wconversion
HARDEN = -fstack-protector-strong -fvisibility=hidden
OPT_release = -O2 -D_FORTIFY_SOURCE=2
OPT_check = -O1 -D_FORTIFY_SOURCE=2 -DCORE_SLOW_CHECKS
OPT_clang = $(OPT_check)
OPT_asan = -O1 -fsanitize=address -fno-omit-frame-pointer -DCORE_SLOW_CHECKS
OPT_tsan = -O1 -fsanitize=thread -DCORE_SLOW_CHECKS
OPT_ubsan = -O1 -fsanitize=undefined -fno-sanitize-recover=all -DCORE_SLOW_CHECKS
OPT_fuzz = -O1 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-DCORE_SLOW_CHECKS
ifneq ($(filter clang fuzz,$(V)),)
CC = clang
WARN += -Wthread-safety
endif

CFLAGS = -std=c17 -g -D_GNU_SOURCE $(OPT_$(V)) $(HARDEN) $(WARN)
CPPFLAGS = -I. -I$(O)/gen -DSHARDFS_VERSION='"$(VERSION)"'
LDFLAGS = $(filter -fsanitize% -fno-sanitize%,$(OPT_$(V))) -rdynamic

KV_SRC = $(sort $(wildcard kv/*.c))
CORE_SRC = $(sort $(wildcard core/*.c))
FS_SRC = $(sort $(wildcard fs/*.c))
CTL_SRC = $(sort $(wildcard tools/shardctl*.c))
BENCH_SRC = $(sort $(wildcard tools/bench*.c))
PROTO = core/state.proto
GEN_OBJ = $(O)/gen/core/state.pb-c.o

obj = $(patsubst %.c,$(O)/%.o,$(1))
LIB_OBJ = $(call obj,$(KV_SRC) $(CORE_SRC)) $(GEN_OBJ)

BIN = $(O)/shardfs $(O)/shardctl $(O)/libshard.a

# The headers a program that embeds the engine needs; core/shard.h is the one to include.
PUBLIC = core/shard.h core/upkeep.h core/metrics.h core/staged.h core/write.h core/listen.h core/read.h core/batch.h core/buf.h core/frontier.h \
	core/id.h core/part.h core/row.h core/scan.h core/state.h core/transition.h \
	kv/blob.h kv/consensus.h kv/rc.h kv/store.h

.PHONY: all embed deps demo check check-quick asan tsan ubsan clang layers lint format bench install clean
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BIN)
	@mkdir -p build
	@for f in $(notdir $(BIN)); do ln -sf $(V)/$$f build/$$f; done
	@for f in $(PUBLIC); do install -D -m 644 $$f build/include/$$f; done

# What a fresh Debian 12 lacks, by apt; silent and without root when nothing is missing.
deps:
	@sh tools/deps.sh

demo: deps
	@$(MAKE) --no-print-directory -s all
	@sh tools/demo.sh

test-deps:
	@sh tools/deps.sh --check
.PHONY: test-deps

check: test-deps layers
	@$(MAKE) --no-print-directory -s all
	@$(MAKE) --no-print-directory -s embed
	@$(MAKE) --no-print-directory -s V=check run-tests
	@$(MAKE) --no-print-directory -s check-power-quick

# The example of docs/embedding.md, from the public headers and the library alone.
embed: all
	@$(CC) -std=c17 -Wall -Wextra -Werror -Ibuild/include -o build/embed docs/embed.c build/libshard.a $(LIB_LIBS)
	@rm -rf build/embed-store && build/embed build/embed-store >build/embed.out
	@printf '#include "%s"\n' $(PUBLIC) | $(CC) -std=c17 -Wall -Wextra -Werror -Ibuild/include -fsyntax-only -xc -
	@printf 'hello +1\nworld +1\nat 0: hello\nat 1: world\nrefused: the upper is 2, not 1 as expected\n' | cmp - build/embed.out

clang: clang-deps
clang-deps:
	@sh tools/deps.sh --clang
.PHONY: clang-deps
asan tsan ubsan clang: test-deps
	@$(MAKE) --no-print-directory -s V=$@ run-tests

# --- compiling ---------------------------------------------------------------------------------------

$(O)/gen/core/state.pb-c.c: $(PROTO)
	@mkdir -p $(O)/gen
	$(Q)protoc-c --c_out=$(O)/gen $(PROTO)
$(O)/gen/core/state.pb-c.h: $(O)/gen/core/state.pb-c.c ;

$(GEN_OBJ): $(O)/gen/core/state.pb-c.c
	$(Q)$(CC) -std=c17 -g $(OPT_$(V)) $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(O)/tests/%.o: tests/%.c $(O)/gen/core/state.pb-c.h
	@mkdir -p $(@D)
	@echo '  CC $<'
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/%.o: %.c $(O)/gen/core/state.pb-c.h
	@mkdir -p $(@D)
	@echo '  CC $<'
	$(Q)$(CC) $(CFLAGS) $(CONV) $(CPPFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/libshard.a: $(LIB_OBJ)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^
$(O)/shardfs: $(call obj,$(FS_SRC)) $(O)/libshard.a
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
$(O)/shardctl: $(call obj,$(CTL_SRC)) $(O)/libshard.a
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
# Only `make bench` needs it, and the libraries of those it compares with.
BENCH_PKGS = sqlite3 libpq libcurl libzstd
$(call obj,$(BENCH_SRC)): CPPFLAGS += $(shell pkg-config --cflags $(BENCH_PKGS) 2>/dev/null)
$(O)/bench: $(call obj,$(BENCH_SRC))
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lrocksdb $(shell pkg-config --libs $(BENCH_PKGS)) -lpthread -lm

# The examples that are compiled; tests/fs runs them and the others. Debian's JRE has the compiler, without its name.
EXAMPLES = $(addprefix $(O)/examples/,append put follow go/follow Append.class Put.class Follow.class)
examples: $(EXAMPLES)
.PHONY: examples
$(O)/examples/%: examples/c/%.c
	@mkdir -p $(@D)
	@echo '  CC $<'
	$(Q)$(CC) -std=gnu17 -O2 $(WARN) $(CONV) -o $@ $<
$(O)/examples/%.class: examples/java/%.java
	@mkdir -p $(@D)
	@echo '  JAVAC $<'
	$(Q)java -m jdk.compiler/com.sun.tools.javac.Main -Xlint:all -Werror -d $(@D) $<
# From the standard library alone, so the network is not asked; what is built meanwhile stays here too.
$(O)/examples/go/%: examples/go/%.go
	@mkdir -p $(@D)
	@echo '  GO $<'
	$(Q)GO111MODULE=off GOFLAGS= GOPROXY=off GOCACHE=$(abspath $(O)/go-cache) go build -o $@ $<

# --- tests -------------------------------------------------------------------------------------------
# One runner per folder of tests/; each closes with the line of Check.

TEST_RUNNERS = $(O)/tests/run-kv $(O)/tests/run-core $(O)/tests/run-fs
$(O)/tests/run-%: $(O)/libshard.a $(O)/shardfs $(O)/shardctl FORCE
	@$(MAKE) --no-print-directory -s V=$(V) link-test T=$*
FORCE:
TEST_SRC = $(sort $(wildcard tests/$(T)/*.c))
LIB_core = $(O)/libshard-alloc.a
LIB_fs = $(O)/libshard.a
LIB_kv = $(O)/libshard.a
link-test: $(call obj,$(TEST_SRC) $(sort $(wildcard tests/*.c))) $(LIB_$(T)) | $(if $(filter fs,$(T)),$(EXAMPLES) $(O)/alloc/shardfs $(O)/shim.so)
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -o $(O)/tests/run-$(T) $^ $(TEST_LIBS)
.PHONY: link-test run-tests FORCE

# Our own objects with the calls that allocate led to tests/alloc.c, which fails one of them when it is told to.
ALLOC_CALLS = malloc calloc realloc reallocarray strdup strndup asprintf __asprintf_chk open_memstream \
	pthread_create opendir fdopendir realpath ZSTD_createCCtx ZSTD_createDCtx
ALLOC = objcopy $(foreach f,$(ALLOC_CALLS),--redefine-sym $(f)=alloc_$(f))
$(O)/libshard-alloc.a: $(O)/libshard.a
	$(Q)$(ALLOC) $< $@
$(O)/alloc/%.o: $(O)/%.o
	@mkdir -p $(@D)
	$(Q)$(ALLOC) $< $@
$(O)/alloc/shardfs: $(patsubst %.c,$(O)/alloc/%.o,$(FS_SRC)) $(O)/tests/alloc.o $(O)/libshard-alloc.a
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

SAN_ENV = $(if $(filter asan tsan,$(V)),CK_TIMEOUT_MULTIPLIER=5) ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 \
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp:halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
# A sanitizer wants to be the first library of a process; there the kills are at random moments alone.
CRASH_SHIM = $(if $(filter check clang,$(V)),$(O)/shim.so)
run-tests: $(TEST_RUNNERS) $(O)/tests/run-crash $(CRASH_SHIM)
	@for r in $(TEST_RUNNERS) $(O)/tests/run-crash; do $(SAN_ENV) CRASH_QUICK=1 CRASH_OUT=$(O)/crash SHIM=$(CRASH_SHIM) \
		SHARDFS=$(O)/shardfs SHARDCTL=$(O)/shardctl $$r || exit 1; done
	@$(MAKE) --no-print-directory -s V=$(V) fuzz-replay

# Random clients on a mount for a long time; not part of check. Environment: SOAK_S (seconds), SEED, SOAK_SLOTS,
# SOAK_KILLS, SOAK_OUT; see tests/soak/main.c. The helpers of the tests are taken, Check's way to fail is not.
soak: test-deps $(O)/tests/run-soak
	@SHARDFS=$(O)/shardfs SHARDCTL=$(O)/shardctl $(O)/tests/run-soak
SOAK_HELP = tests/fs/world.c tests/fs/shards.c tests/fs/program.c tests/check_util.c
$(O)/tests/run-soak: $(call obj,$(sort $(wildcard tests/soak/*.c)) $(SOAK_HELP)) | $(O)/shardfs $(O)/shardctl
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -Wl,--wrap=_ck_assert_failed,--wrap=_mark_point -o $@ $^ $(TEST_LIBS)
.PHONY: soak

# Fuzzing (tests/fuzz/README.md). `make fuzz` runs each target for FUZZ_S seconds with libFuzzer, on top of the
# inputs that are kept in tests/fuzz/corpus and tests/regress/fuzz; the tests only replay those.
FUZZ = $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_OBJ = $(call obj,tests/fuzz/fuzz.c $(sort $(wildcard tests/fuzz/kernel*.c)) $(filter-out fs/main.c,$(FS_SRC))) $(O)/libshard.a
FUZZ_LINK = $(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
$(O)/fuzz/%: $(O)/tests/fuzz/fuzz_%.o $(FUZZ_OBJ)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(FUZZ_LINK) -fsanitize=fuzzer
$(O)/replay/%: $(O)/tests/fuzz/fuzz_%.o $(O)/tests/fuzz/replay.o $(FUZZ_OBJ)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(FUZZ_LINK)
$(O)/replay/seeds: $(O)/tests/fuzz/seeds.o $(O)/tests/fuzz/fuzz.o $(O)/libshard.a
	@mkdir -p $(@D)
	$(Q)$(FUZZ_LINK)
fuzz:
	@sh tools/deps.sh --check
	@sh tools/deps.sh --fuzz
	@$(MAKE) --no-print-directory -s V=fuzz fuzz-targets
	@sh tests/fuzz/run.sh build/fuzz/fuzz $(FUZZ)
fuzz-targets: $(addprefix $(O)/fuzz/,$(FUZZ))
fuzz-replay: $(addprefix $(O)/replay/,$(FUZZ))
	@for t in $(FUZZ); do $(SAN_ENV) $(O)/replay/$$t tests/fuzz/corpus/$$t tests/regress/fuzz/$$t || exit 1; done
.PHONY: fuzz fuzz-targets fuzz-replay

# --- order -------------------------------------------------------------------------------------------

layers:
	@sh tools/layers.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

bench: deps
	@$(MAKE) --no-print-directory -s all
	@MAKE='$(MAKE)' sh tools/bench.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 755 $(O)/shardfs $(O)/shardctl $(DESTDIR)$(PREFIX)/bin
	ln -sf ../bin/shardfs $(DESTDIR)$(PREFIX)/sbin/mount.fuse.shardfs
	install -m 644 $(O)/libshard.a $(DESTDIR)$(PREFIX)/lib
	for f in $(PUBLIC); do install -D -m 644 $$f $(DESTDIR)$(PREFIX)/include/shardfs/$$f || exit 1; done
	printf '%s\n' 'Name: shardfs' 'Description: shards as a library' 'Version: $(VERSION)' \
		'Cflags: -I$(PREFIX)/include/shardfs' 'Libs: -L$(PREFIX)/lib -lshard' \
		'Libs.private: $(LIB_LIBS)' >$(DESTDIR)$(PREFIX)/lib/pkgconfig/shardfs.pc

clean:
	rm -rf build


# Many clients on a mount whose replies are checked; build/load/report.md. Environment: LOAD_S (600), LOAD_CLIENTS
# (200), LOAD_NEAR_S (10), SEED. LOAD_V=release for figures without the checks.
LOAD_V ?= check
check-load:
	@$(MAKE) --no-print-directory -s V=$(LOAD_V) build/$(LOAD_V)/shardfs build/$(LOAD_V)/tests/run-load
	@umount -l build/load/mnt 2>/dev/null; rm -rf build/load/store; mkdir -p build/load
	@SHARDFS=$(CURDIR)/build/$(LOAD_V)/shardfs build/$(LOAD_V)/tests/run-load $(CURDIR)/build/load
$(O)/tests/run-load: $(call obj,$(sort $(wildcard tests/load/*.c)))
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lm
.PHONY: check-load


# The long forms, one after the other.
check-all: check
	@NTH_ALL=1 CORRUPT_ALL=1 $(MAKE) --no-print-directory -s V=check run-tests
	@for t in analyse check-locks check-crash check-power check-load fuzz asan ubsan tsan clang valgrind soak; do \
		$(MAKE) --no-print-directory -s $$t || exit 1; done
.PHONY: check-all

# --- power loss, and calls that fail or kill -----------------------------------------------------------
# An interposed library for tests: tests/shim/shim.c says what it can do.
$(O)/shim.so: $(wildcard tests/shim/*.[ch])
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -std=gnu17 -g -O2 -U_FORTIFY_SOURCE -D_GNU_SOURCE -I. $(WARN) -fPIC -shared -fvisibility=hidden \
		-o $@ $(filter %.c,$^) -ldl -lpthread

# Power cuts: tests/power/main.c has its environment. The quick form leaves the missing syncs out.
check-power: test-deps
	@$(MAKE) --no-print-directory -s V=check run-power
check-power-quick: test-deps
	@POWER_STATES=$${POWER_STATES:-150} POWER_ONLY=none $(MAKE) --no-print-directory -s V=check run-power
run-power: $(O)/tests/run-power $(O)/shardfs $(O)/shardctl $(O)/shim.so
	@python3 tests/shim/selftest.py $(O)/shim.so
	@SHARDFS=$(O)/shardfs SHARDCTL=$(O)/shardctl SHIM=$(abspath $(O)/shim.so) $(O)/tests/run-power
$(O)/tests/run-power: $(call obj,$(sort $(wildcard tests/power/*.c)) tests/check_util.c) $(O)/libshard.a
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(TEST_LIBS)
.PHONY: check-power check-power-quick run-power

# --- crashes -------------------------------------------------------------------------------------------
# kill -9 of the mount at random moments and at its system calls: tests/crash/main.c says what the environment
# may be (CRASH_KILLS, SEED). The quick form is part of run-tests.
check-crash: test-deps
	@$(MAKE) --no-print-directory -s V=check build/check/tests/run-crash build/check/shim.so
	@SHIM=build/check/shim.so SHARDFS=build/check/shardfs SHARDCTL=build/check/shardctl build/check/tests/run-crash
CRASH_HELP = tests/fs/world.c tests/fs/shards.c tests/fs/program.c tests/check_util.c
$(O)/tests/run-crash: $(call obj,$(sort $(wildcard tests/crash/*.c)) $(CRASH_HELP)) $(O)/libshard.a | $(O)/shardfs $(O)/shardctl
	@echo '  LINK $@'
	$(Q)$(CC) $(LDFLAGS) -Wl,--wrap=_ck_assert_failed,--wrap=_mark_point -o $@ $^ $(TEST_LIBS)
.PHONY: check-crash

# --- reading the code, its locks and its memory -------------------------------------------------------
# tools/analyse.sh says what reads it. The order of locks is noted by an interposed library while tests run, and has
# to be free of circles (tests/locks). Valgrind runs the suites that tests/valgrind.sh names.
analyse:
	@sh tools/deps.sh --analyse
	@$(MAKE) --no-print-directory -s V=check build/check/gen/core/state.pb-c.h
	@sh tools/analyse.sh
check-locks: test-deps
	@$(MAKE) --no-print-directory -s V=check run-locks
run-locks: $(TEST_RUNNERS) $(O)/locks.so $(O)/inverted
	@SHARDFS=$(O)/shardfs SHARDCTL=$(O)/shardctl sh tests/locks/run.sh $(O)
$(O)/locks.so: tests/locks/locks.c
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -std=gnu17 -g -O2 -D_GNU_SOURCE $(WARN) -fPIC -shared -fvisibility=hidden -o $@ $< -ldl -lpthread
$(O)/inverted: tests/locks/inverted.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -g -O1 $(WARN) -o $@ $< -lpthread
valgrind: test-deps
	@sh tools/deps.sh --valgrind
	@$(MAKE) --no-print-directory -s V=check run-valgrind
run-valgrind: $(O)/tests/run-kv $(O)/tests/run-core
	@sh tests/valgrind.sh $(O)/tests
.PHONY: analyse check-locks run-locks valgrind run-valgrind

-include $(shell find $(O) -name '*.d' 2>/dev/null)
