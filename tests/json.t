#!/usr/bin/env bash
# -j: what jq and Python read in each line is what -H has in its fields, whatever a guest is called.
. "$(dirname "$0")/lib.sh"
needs jq perl python3

# same FIELDS OBJECTS: that both tell the same, by Python: numbers with the same digits
same() {
	python3 -c '
import json, sys
fields = [line.rstrip("\n").split("\t") for line in open(sys.argv[1], encoding="utf-8", newline="\n")]
objects = [json.loads(line, parse_int=str, parse_float=str) for line in open(sys.argv[2], encoding="utf-8")]
assert len(fields) == len(objects) > 0, "%d, %d" % (len(fields), len(objects))
for one, other in zip(fields, objects):
    assert list(other)[:2] == ["time", "interval"] and float(other.pop("interval")) > 0
    for text, value in zip(one, other.values(), strict=True):
        assert text == value or value is None and text in "-?", "%s, %s" % (text, value)
' "$1" "$2"
}

# Names of five bytes in place of `guest': quotes, controls, what is no UTF-8, what cannot be seen.
names=(guest 'a"b\c' $'\x01\n\t\r\x1f' $'\xff\xfe\xc0\x80\xc3' $'\xed\xa0\x80\xe2\x80' $'\xe2\x80\xae\xc2\x85' $'\xf0\x9f\x98\x80\x7f' $'"}\n{"' '\u00"')
for name in "${names[@]}"; do
	name=$name perl -pe 's/guest\0/$ENV{name}\0/g' "$here/captures/svm-6.1-mix2.dat" >"$tmp/dat"
	for options in -n "-n -s" "-n -s -s" "-n -e vmexit -l 3"; do
		# shellcheck disable=SC2086 # a list of words
		{
			"$kvmstat" -HT u $options -r "$tmp/dat" 0.05 >"$tmp/fields"
			"$kvmstat" -jT u $options -r "$tmp/dat" 0.05 >"$tmp/objects"
		}
		same "$tmp/fields" "$tmp/objects" 2>"$tmp/err"
		ok $? "kvmstat -j $options, a guest called $(printf '%q' "$name")"
		[ ! -s "$tmp/err" ] || note "$(tail -n 1 "$tmp/err")"
	done
	is "$("$kvmstat" -jn -r "$tmp/dat" | jq -r .name)" "$("$kvmstat" -Hn -r "$tmp/dat" | cut -f 12)" "and jq reads the same name"
	is "$("$kvmstat" -j -r "$tmp/dat" -p "$("$kvmstat" -jn -r "$tmp/dat" | jq -rs '.[0].name')" | wc -l)" 2 "which -p takes"
done
for file in "$here"/captures/*.dat; do
	"$kvmstat" -HnT u -r "$file" >"$tmp/fields" 2>/dev/null
	"$kvmstat" -jnT u -r "$file" >"$tmp/objects" 2>/dev/null
	same "$tmp/fields" "$tmp/objects"
	ok $? "kvmstat -jn -r ${file##*/}"
done

file=$here/captures/svm-6.1-mix2.dat
is "$("$kvmstat" -j -r "$file" | jq -r '"\(.pid) \(.vcpu + 1) \(.exits + 1)"')" "759 1 722
759 2 725" "numbers are numbers"
is "$("$kvmstat" -jss -r "$file" | jq -c '[.pid, .vcpus, .exits]')" "[null,2,1445]" "-ss: no pid"
is "$("$kvmstat" -j -e vmexit -l 1 -r "$file" | jq -r '.vmexit, ."count%"' | head -n 2)" "npf
37.44" "-e: the key is a string, its share a number"
is "$("$kvmstat" -j -r "$file" 0.05 | jq .interval | uniq | head -n 1)" 0.05 "the interval's seconds"
[ -z "$("$kvmstat" -j -r "$file" | tail -c 1)" ]
ok $? "lines end"
done_testing
