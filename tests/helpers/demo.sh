# For demo.t and demo-live.t, after lib.sh: a tree to run make demo in, and what each run has to show.

chmod 755 "$tmp"

# A tree of its own, which each of its users may write to.
tree=$tmp/tree
mkdir -p "$tree/tests/helpers" "$tree/tests/captures"
cp "$top"/{Makefile,kvmstat.c} "$tree"
cp "$here/demo" "$tree/tests"
cp "$here"/helpers/*.[ch] "$tree/tests/helpers"
cp "$here"/captures/*.dat "$tree/tests/captures"
cp "$kvmstat" "$tree/kvmstat"
chmod -R a+rwX "$tree"

# demo WHERE COMMAND...: runs make demo by COMMAND; sets out
kinds="busy idle spins starved still"
demo() {
	out=$("${@:2}" make --no-print-directory -C "$tree" demo 2>&1 </dev/null)
	is $? 0 "$1: status 0"
	is "$(sed -n "s/^  \(${kinds// /\\|}\) .*/\1/p" <<<"$out" | xargs)" "$kinds" \
		"a sentence for each kind of row"
}
