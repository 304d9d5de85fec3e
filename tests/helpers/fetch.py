#!/usr/bin/python3
"""fetch.py HOST: fetches kvmstat's metrics from the pmcd there as fast as it can, until its
stdin ends, and looks at each value.  Guests are those of churn in fleet.t: process PID is named
gPID and makes at most 41 exits.  Prints what is wrong, and at the end how much was fetched."""

import select
import sys

import cpmapi
from pcp import pmapi

COUNTERS = ["exits", "haltx", "irqx", "irqwx", "iox", "mmiox", "irqs", "emul", "eptv"]
METRICS = ["mmv.kvmstat." + name for name in COUNTERS + ["name", "vcpus", "lost", "interval"]]

context = pmapi.pmContext(cpmapi.PM_CONTEXT_HOST, sys.argv[1])
pmids = context.pmLookupName(METRICS)
descs = context.pmLookupDescs(pmids)
last = {}  # by id: the instance's counters
names = {}  # by id: the instance's name
fetches = 0


def wrong(text):
    print("fetch %d: %s" % (fetches, text))


def value(result, metric, i):
    """Value i of the metric with the given index."""
    kind = descs[metric].contents.type
    atom = context.pmExtractValue(
        result.contents.get_valfmt(metric), result.contents.get_vlist(metric, i), kind, kind)
    return atom.cp.decode() if kind == cpmapi.PM_TYPE_STRING else atom.ull


def look(result):
    numbers = [result.contents.get_numval(m) for m in range(len(METRICS))]
    if numbers[-3:] != [1, 1, 1] or len(set(numbers[:-3])) != 1 or numbers[0] < 0:
        return wrong("numbers of values: %s" % numbers)
    if value(result, 10, 0) > numbers[0] or value(result, 11, 0) != 0:
        wrong("vcpus or lost")
    for i in range(numbers[0]):
        ids = {result.contents.get_inst(m, i) for m in range(10)}
        instance = ids.pop()
        if ids:
            wrong("instances in different orders")
        counters = [value(result, m, i) for m in range(9)]
        before = last.setdefault(instance, [0] * 9)
        if any(a < b for a, b in zip(counters, before)):
            wrong("%d: %s after %s" % (instance, counters, before))
        if counters[0] > 41 or sum(counters[1:6]) > counters[0]:
            wrong("%d: %s" % (instance, counters))
        last[instance] = counters
        guest = value(result, 9, i)
        # One that is ending when it is first seen has no command line any more.
        if names.setdefault(instance, guest) != guest or guest not in (
                "g%d" % (instance >> 8), "guest", "?"):
            wrong("%d: %s" % (instance, guest))


while not select.select([sys.stdin], [], [], 0)[0]:
    result = context.pmFetch(pmids)
    look(result)
    context.pmFreeResult(result)
    fetches += 1
print("%d fetches, %d instances, %d with counts" % (
    fetches, len(last), sum(counters[0] > 0 for counters in last.values())))
