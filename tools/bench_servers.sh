# The servers that the mount is compared with, each private, with its files in $work; tools/bench.sh sources this.
#
# Sets BENCH_PG and BENCH_ETCD, which say how to reach them; one that is not there is left unset, with the reason in
# $pg_missing and $etcd_missing. Their processes are pg_pid and etcd_pid.
# shellcheck shell=sh disable=SC2034,SC2154

pg_pid='' etcd_pid='' pg_missing='' etcd_missing='' pg_sock=''

# wait_for PID CONDITION...: until the condition holds; fails when the process has ended or it takes too long.
wait_for() {
	wait_pid=$1 tries=0
	shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		kill -0 "$wait_pid" 2>/dev/null && [ "$tries" -le 600 ] || return 1
		sleep 0.1
	done
}

# PostgreSQL refuses to run as root; then the user that its package made runs it.
as_pg() {
	if [ "$(id -u)" -eq 0 ]; then
		exec setpriv --reuid=postgres --regid=postgres --clear-groups -- env HOME="$work" "$@"
	fi
	exec "$@"
}

# Durable as it comes (fsync and synchronous_commit on), and else set so that nothing holds it back: memory for what
# is compared, no checkpoint on the way, no more log than a store without replicas needs, no compiling of queries.
pg_conf() {
	cat <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$pg_sock'
		fsync = on
		synchronous_commit = on
		full_page_writes = on
		wal_level = minimal
		max_wal_senders = 0
		max_connections = 40
		shared_buffers = 1GB
		work_mem = 512MB
		maintenance_work_mem = 512MB
		effective_cache_size = 4GB
		max_wal_size = 8GB
		min_wal_size = 1GB
		checkpoint_timeout = 30min
		wal_buffers = 64MB
		random_page_cost = 1.1
		jit = off
	CONF
}

start_pg() {
	pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
	if [ ! -x "$pg_bin/postgres" ]; then
		pg_missing='postgresql-15 could not be installed'
		return
	fi
	mkdir "$work/pg"
	pg_sock=$(mktemp -d /tmp/shardfs-bench.XXXXXX)
	if [ "$(id -u)" -eq 0 ]; then
		chown postgres "$work/pg" "$pg_sock"
		if ! (as_pg test -w "$work/pg"); then
			pg_missing="the user postgres cannot reach $work; set BENCH_DIR to where it can"
			return
		fi
	fi
	if ! (as_pg "$pg_bin/initdb" -D "$work/pg" -U bench -A trust -E SQL_ASCII --locale=C) >"$work/pg.log" 2>&1; then
		pg_missing="initdb failed: $(tail -n 1 "$work/pg.log")"
		return
	fi
	pg_conf >>"$work/pg/postgresql.conf"
	(as_pg "$pg_bin/postgres" -D "$work/pg") >>"$work/pg.log" 2>&1 &
	pg_pid=$!
	if ! wait_for "$pg_pid" "$pg_bin/psql" -h "$pg_sock" -U bench -d postgres -Atc 'SELECT 1'; then
		pg_missing="the server did not start: $(tail -n 1 "$work/pg.log")"
		return
	fi
	BENCH_PG="host=$pg_sock user=bench dbname=postgres"
	export BENCH_PG
}

start_etcd() {
	if ! command -v etcd >/dev/null; then
		etcd_missing='etcd-server could not be installed'
		return
	fi
	for try in 1 2 3 4 5; do
		port=$(shuf -i 20000-32000 -n 1)
		client=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
		etcd --name bench --data-dir "$work/etcd.$try" --listen-client-urls "$client" \
			--advertise-client-urls "$client" --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
			--initial-cluster "bench=$peer" --quota-backend-bytes 8589934592 --logger zap \
			--log-outputs "$work/etcd.log" >/dev/null 2>&1 &
		etcd_pid=$!
		if wait_for "$etcd_pid" grep -q 'serving.*insecure' "$work/etcd.log"; then
			BENCH_ETCD=$client
			export BENCH_ETCD
			return
		fi
		end_server "$etcd_pid" TERM
		etcd_pid=
	done
	etcd_missing="it did not start: $(tail -n 1 "$work/etcd.log" 2>/dev/null)"
}

# end_server PID SIGNAL
end_server() {
	[ -n "$1" ] && kill "-$2" "$1" 2>/dev/null || return 0
	wait "$1" 2>/dev/null || true
}

stop_servers() {
	end_server "$pg_pid" INT
	end_server "$etcd_pid" TERM
	[ -z "$pg_sock" ] || rm -rf "$pg_sock"
}
