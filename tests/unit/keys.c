/*
 * keys - the tables of -e: counts and times by what an exit was for
 *
 * A part of unit.c, which includes it.
 */

/* The key of vCPU 0 of TID with the given id; all 0 if there is none. */
static struct key key_at(uint64_t id)
{
    const struct tally *t = &vcpu_of(guest_of(TID, 0), 0)->tally;

    for (size_t i = 0; i < t->nkeys; i++) {
        if (t->keys[i].id == id)
            return t->keys[i];
    }
    return (struct key){.id = id};
}

/* A host of 3 CPUs, whose events are those that a table needs, with a thread TID. */
static void make_table(enum table table)
{
    make_host(HARDWARE, 3);
    options.table = table;
    memset(event_of_id, 0, sizeof(event_of_id));
    choose_events(false);
    add_thread(TID, TID, UNKNOWN_VCPU);
    reading.gap = 0;
}

/* Tests count, number of times, and sum, least and greatest of these, of a key. */
static void is_key(uint64_t id, const uint64_t wanted[5], const char *name)
{
    struct key k = key_at(id);

    if (!ok(k.count == wanted[0] && k.timed == wanted[1] && k.total == wanted[2] &&
                k.min == wanted[3] && k.max == wanted[4],
            "%s", name))
        note("got %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, k.count, k.timed,
            k.total, k.min, k.max);
}

/* From an exit to the entry of the same vCPU. */
static void test_exit_times(void)
{
    struct sent hlt = vmx_exit(TID, 0, 12), io = vmx_exit(TID, 0, 30), other = vmx_exit(TID, 1, 12);
    struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}},
                entry1 = {KVM_ENTRY, TID, {[VCPU_ID] = 1}};

    for (int cpu = 0; cpu < 2; cpu++) {
        make_table(VMEXIT);
        put(cpu, 100, &hlt);
        put(1 - cpu, 150, &entry);
        put(1 - cpu, 200, &io);
        put(cpu, 203, &entry);
        put(cpu, 300, &hlt);
        put(cpu, 310, &entry);
        read_until(UINT64_MAX);
        is_key(
            12, (uint64_t[]){2, 2, 60, 10, 50}, "an exit's time ends with the entry, on any CPU");
        is_key(30, (uint64_t[]){1, 1, 3, 3, 3}, "each reason has its own");
    }
    make_table(VMEXIT);
    put(0, 50, &entry);
    put(0, 100, &hlt);
    put(0, 120, &other);
    put(0, 130, &entry1);
    put(0, 150, &entry);
    put(0, 160, &hlt);
    read_until(UINT64_MAX);
    is_key(12, (uint64_t[]){2, 1, 50, 50, 50},
        "one thread runs two vCPUs: each exit ends with its own vCPU's entry; the last one has no "
        "end");
    clear_counts();
    put(2, 1160, &entry);
    read_until(UINT64_MAX);
    is_key(12, (uint64_t[]){0, 1, 1000, 1000, 1000},
        "an exit that lasts counts when it began, its time when it ended");
    for (int cpu = 0; cpu < 3; cpu++) {
        make_table(VMEXIT);
        put(0, 100, &hlt);
        lose(cpu, 3);
        put(cpu, 120, &entry);
        put(1, 130, &io);
        put(1, 140, &entry);
        read_until(UINT64_MAX);
        is_key(12, (uint64_t[]){1, 0, 0, 0, 0}, "events lost in between: no time is made up");
        is_key(30, (uint64_t[]){1, 1, 10, 10, 10}, "and times go on after that");
    }
}

/* Where there is no kvm_entry: up to the load of the guest's FPU. */
static void test_user_exit_times(void)
{
    struct sent hlt = {KVM_USERSPACE_EXIT, TID, {[REASON] = KVM_EXIT_HLT}};
    struct sent unload = {KVM_FPU, TID, {[LOAD] = 0}}, load = {KVM_FPU, TID, {[LOAD] = 1}};

    make_table(VMEXIT);
    memset(event_of_id, 0, sizeof(event_of_id));
    choose_events(true);
    (*thread_slot(TID))->vcpu = vcpu_of(guest_of(TID, 0), 0);
    put(0, 100, &hlt);
    put(0, 110, &unload);
    put(0, 150, &load);
    put(0, 170, &unload);
    put(0, 180, &load);
    read_until(UINT64_MAX);
    find_all_vcpus();
    is_key(KVM_EXIT_HLT, (uint64_t[]){1, 1, 50, 50, 50},
        "user space has the guest until its FPU is loaded");
}

/* Times of MMIO and port I/O are perf-kvm's. */
static void test_device_times(void)
{
    struct sent exit = vmx_exit(TID, 0, 48), entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}};
    struct sent unsatisfied = {KVM_MMIO, TID, {[TYPE] = 0, [GPA] = 0x1000}};
    struct sent read = {KVM_MMIO, TID, {[TYPE] = MMIO_READ, [GPA] = 0x1000}};
    struct sent write = {KVM_MMIO, TID, {[TYPE] = MMIO_WRITE, [GPA] = 0x1000}};
    struct sent out = {KVM_PIO, TID, {[PORT] = 0x3f8, [RW] = 1}};

    make_table(MMIO);
    put(0, 100, &exit);
    put(0, 101, &unsatisfied);
    put(1, 130, &read);
    put(1, 131, &read);
    put(1, 140, &entry);
    put(1, 200, &exit);
    put(0, 205, &write);
    put(0, 215, &write);
    put(2, 240, &entry);
    read_until(UINT64_MAX);
    is_key(0x2000, (uint64_t[]){2, 1, 30, 30, 30},
        "a read lasts from the exit to kvm_mmio, once an exit");
    is_key(0x2001, (uint64_t[]){2, 1, 25, 25, 25}, "a write from the last kvm_mmio to the entry");
    make_table(IOPORT);
    put(0, 100, &out);
    put(1, 117, &entry);
    put(1, 130, &entry);
    read_until(UINT64_MAX);
    is_key(0x3f8 << 1 | 1, (uint64_t[]){1, 1, 17, 17, 17}, "port I/O from kvm_pio to the entry");
}

/* Tests the name of a key of the table that is reported. */
static void is_name(uint64_t id, const char *wanted)
{
    char name[48];

    key_name(id, name, sizeof(name));
    is_text(name, wanted, "the name of a key");
}

/* MSRs, leaves of CPUID and hypercalls last from their own event to the entry. */
static void test_number_keys(void)
{
    struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}};
    struct sent read = {KVM_MSR, TID, {[ECX] = 0xc0000080, [WRITE] = 0}};
    struct sent write = {KVM_MSR, TID, {[ECX] = 0xc0000080, [WRITE] = 1}};
    struct sent leaf = {KVM_CPUID, TID, {[FUNCTION] = 0x80000008}};
    struct sent call = {KVM_HYPERCALL, TID, {[NR] = UINT32_MAX}};

    make_table(MSR);
    put(0, 100, &read);
    put(0, 107, &write);
    put(1, 120, &entry);
    put(1, 130, &read);
    put(0, 134, &entry);
    read_until(UINT64_MAX);
    is_key(0xc0000080ull << 1, (uint64_t[]){2, 1, 4, 4, 4},
        "two MSRs in one exit both count, and the first one has no end");
    is_key(0xc0000080ull << 1 | 1, (uint64_t[]){1, 1, 13, 13, 13}, "reads and writes are apart");
    is_name(0xc0000080ull << 1, "0xc0000080:R");
    is_name(0xc0000080ull << 1 | 1, "0xc0000080:W");
    make_table(CPUID);
    put(0, 100, &leaf);
    put(2, 109, &entry);
    read_until(UINT64_MAX);
    is_key(0x80000008, (uint64_t[]){1, 1, 9, 9, 9}, "a leaf of CPUID");
    is_name(0x80000008, "0x80000008");
    make_table(HYPERCALL);
    for (uint64_t time = 100; time <= 400; time += 100) {
        put(0, time, &call);
        put(1, time + 3, &entry);
        call.values[NR] = time == 100 ? UINT64_C(1) << 32 : UINT64_MAX - time / 200;
    }
    read_until(UINT64_MAX);
    is_key(UINT32_MAX, (uint64_t[]){1, 1, 3, 3, 3}, "a hypercall, of 32 bits at most");
    is_key(OTHER_KEYS, (uint64_t[]){3, 3, 9, 3, 3}, "those that KVM cannot have are together");
    is_name(UINT32_MAX, "0xffffffff");
    is_name(OTHER_KEYS, "other");
}

/* More keys than are kept apart. */
static void test_many_keys(void)
{
    enum { KEYS = 20000, HOT = 1000 };
    struct sent write = {KVM_MMIO, TID, {[TYPE] = MMIO_WRITE, [VCPU_ID] = 0}};
    struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}};
    const struct tally *t;
    uint64_t time = 1, count = 0;
    size_t most = 0;

    make_table(MMIO);
    put(0, time++, &entry);
    for (int i = 0; i < KEYS; i++) {
        write.values[GPA] = 0x100000 + chance() % (1u << 30);
        put(0, time++, &write);
        write.values[GPA] = 0xfee000b0;
        if (i % (KEYS / HOT) == 0)
            put(0, time++, &write);
        if (i % 100 == 0) {
            read_until(UINT64_MAX);
            t = &vcpu_of(guest_of(TID, 0), 0)->tally;
            most = t->nkeys > most ? t->nkeys : most;
        }
    }
    read_until(UINT64_MAX);
    t = &vcpu_of(guest_of(TID, 0), 0)->tally;
    for (size_t i = 0; i < t->nkeys; i++)
        count += t->keys[i].count;
    ok(count == KEYS + HOT, "20000 addresses: nothing is lost");
    ok(most <= MAX_KEYS && t->nkeys > MAX_KEYS / 2 - 2, "and at most %u rows are kept", MAX_KEYS);
    ok(key_at(0xfee000b0ull << 1 | 1).count >= HOT - 1, "the frequent one has its own");
    ok(key_at(OTHER_KEYS).count != 0, "and the rest is in the row other");
    clear_counts();
    ok(t->keys == NULL && t->nkeys == 0, "the next interval starts without them");
}

static const struct test keys_tests[] = {
    {"exit_times", test_exit_times},
    {"user_exit_times", test_user_exit_times},
    {"device_times", test_device_times},
    {"number_keys", test_number_keys},
    {"many_keys", test_many_keys},
};
