# Performance Co-Pilot's own programs for the tests, in bash, after lib.sh: with directories,
# ports and a name space of metrics of the test's, and no daemon of the system.

pmdas=/var/lib/pcp/pmdas
pmcd_port=$((20000 + $$ % 20000))
pmproxy_port=$((pmcd_port + 1))
pmcd=127.0.0.1:$pmcd_port
export PCP_TMP_DIR=$tmp/pcp PCP_RUN_DIR=$tmp/pcp PCP_LOG_DIR=$tmp/pcp
mmv=$PCP_TMP_DIR/mmv
# PCP's programs in Python are for the system's.
PATH=/usr/bin:$PATH

has_pcp() {
	[ -e "$pmdas/mmv/pmda_mmv.so" ] || skip_all "needs pmda_mmv.so (package pcp)"
	mkdir -p "$mmv"
	chmod 755 "$tmp" "$PCP_TMP_DIR"
	printf 'root {\n\tmmv 70:*:*\n}\n' >"$tmp/names"
}

# info OPTIONS... METRICS...: pminfo, with the agent in its own process
info() {
	pminfo -n "$tmp/names" -L -K clear -K "add,70,$pmdas/mmv/pmda_mmv.so,mmv_init" "$@"
}

# start_pmcd: the daemon that others get metrics from, at $pmcd; sets pid
start_pmcd() {
	sed 's/^    pmcd$/&\n    mmv 70:*:*/' /var/lib/pcp/pmns/root_pmcd >"$tmp/all_names"
	cat >"$tmp/pmcd.conf" <<-END
		pmcd 2 dso pmcd_init $pmdas/pmcd/pmda_pmcd.so
		mmv 70 dso mmv_init $pmdas/mmv/pmda_mmv.so
	END
	start pmcd /usr/lib/pcp/bin/pmcd -f -A -i 127.0.0.1 -p "$pmcd_port" -s "$PCP_RUN_DIR/pmcd.socket" \
		-c "$tmp/pmcd.conf" -n "$tmp/all_names" -U root -l "$tmp/pmcd.log"
	until_true 10 pminfo -h "$pmcd" pmcd.numagents >/dev/null 2>&1
}

# start_pmproxy: serves them to Prometheus, at $pmproxy_port; sets pid
start_pmproxy() {
	cat >"$tmp/pmproxy.conf" <<-END
		[pmproxy]
		pcp.enabled = true
		http.enabled = true
		redis.enabled = false
		secure.enabled = false
		[redis]
		enabled = false
		[discover]
		enabled = false
		[pmseries]
		enabled = false
	END
	PMCD_PORT=$pmcd_port start pmproxy /usr/lib/pcp/bin/pmproxy -f -A -c "$tmp/pmproxy.conf" \
		-i 127.0.0.1 -p "$pmproxy_port" -s "$PCP_RUN_DIR/pmproxy.socket" -U root -l "$tmp/pmproxy.log"
	until_true 10 curl -so /dev/null "http://127.0.0.1:$pmproxy_port/metrics"
}

# has_prometheus: it is here, or unpacked from Debian's package.  That depends on 13 others, of 300 MB,
# for its pages in a browser: it is not installed.
has_prometheus() {
	local own=$here/build/prometheus
	PATH=$PATH:$own/usr/bin
	missing prometheus promtool >/dev/null || return 0
	(mkdir -p "$own.new" && cd "$own.new" && apt-get -q download prometheus && dpkg-deb -x prometheus_*.deb . &&
		mv "$own.new" "$own") >"$tmp/fetch" 2>&1 && return
	why "$(cat "$tmp/fetch")"
	skip_all "needs the package prometheus, which could not be downloaded (apt-get update?)"
}
