/*
 * reasons - which column an exit's reason counts in
 *
 * A part of unit.c, which includes it.
 */

/* Counts one event in an empty host, and gives the column beside exits, or NCOUNTERS. */
static enum counter column_of(const struct sent *e)
{
    static const struct thread fresh;
    uint8_t record[EVENT];
    struct stream s = {.next = {.time = 1, .data = record, .size = EVENT}};
    enum counter found = NCOUNTERS;
    struct thread *t = thread_of(TID, guest_of(TID, 0));
    uint64_t sum = 0;

    /* As if the thread were new. */
    struct guest *g = t->guest;
    *t = fresh;
    t->tid = TID;
    t->guest = g;
    t->tally = &t->pending;
    encode(e, record);
    /* With a vCPU's number in the event the counts are the vCPU's at once. */
    memset(&vcpu_of(g, 0)->tally, 0, sizeof(struct tally));
    count(&s);
    settle_exit(t);
    for (int i = 0; i < NCOUNTERS; i++) {
        sum += t->tally->counts[i];
        if (i != EXITS && t->tally->counts[i] != 0)
            found = (enum counter)i;
    }
    /* One exit, one column at most: anything else is none of the counters. */
    return t->tally->counts[EXITS] == 1 && sum == 1 + (found != NCOUNTERS) ? found : EXITS;
}

/* Tests that all codes up to last are in the columns of the table; e's field is the code. */
static void is_table(struct sent *e, enum field_name field, uint64_t last,
    const struct reason *table, size_t size, const char *name)
{
    bool same = true;

    for (uint64_t code = 0; code <= last; code++) {
        enum counter wanted = NCOUNTERS;
        for (size_t i = 0; i < size; i++) {
            if (table[i].code == code)
                wanted = table[i].counter;
        }
        e->values[field] = code;
        enum counter got = column_of(e);
        if (got != wanted)
            note("reason 0x%" PRIx64 ": column %d, not %d", code, (int)got, (int)wanted);
        same &= got == wanted;
    }
    ok(same, "%s", name);
}

static void test_vmx_reasons(void)
{
    static const struct reason vmx[] = {
        {1, IRQX}, {7, IRQWX}, {12, HALTX}, {30, IOX}, {48, EPTV}, {49, MMIOX}};
    struct sent e = vmx_exit(TID, 0, 0);

    make_host(HARDWARE, 1);
    is_table(
        &e, EXIT_REASON, 0xffff, vmx, SIZE(vmx), "VMX: each basic reason has its column or none");
    e.values[EXIT_REASON] = 0x08000000 | 12; /* SDM: the processor was in enclave mode */
    ok(column_of(&e) == HALTX, "VMX: the flags above the basic reason do not matter");
    e.values[EXIT_REASON] = 0x80000000 | 33;
    ok(column_of(&e) == NCOUNTERS, "VMX: a failed entry is an exit without a column");
}

static void test_svm_reasons(void)
{
    static const struct reason svm[] = {
        {0x60, IRQX}, {0x64, IRQWX}, {0x78, HALTX}, {0xa6, HALTX}, {0x7b, IOX}, {0x400, EPTV}};
    static const struct reason reserved[] = {
        {0x60, IRQX}, {0x64, IRQWX}, {0x78, HALTX}, {0xa6, HALTX}, {0x7b, IOX}, {0x400, MMIOX}};
    struct sent e = {KVM_EXIT, TID, {[ISA] = 2, [INFO1] = ~(uint64_t)8}};

    make_host(HARDWARE, 1);
    is_table(&e, EXIT_REASON, 0xffff, svm, SIZE(svm), "SVM: each reason has its column or none");
    e.values[INFO1] = 8;
    is_table(&e, EXIT_REASON, 0xffff, reserved, SIZE(reserved),
        "SVM: a nested page fault on a reserved bit is MMIO");
    e.values[EXIT_REASON] = 0xffffffff;
    ok(column_of(&e) == NCOUNTERS, "SVM: a failed entry is an exit without a column");
    e.values[EXIT_REASON] = 0x10060;
    ok(column_of(&e) == NCOUNTERS, "SVM: all bits of a reason count");
}

static void test_arm64_reasons(void)
{
    static const struct reason trap[] = {{0x01, HALTX}, {0x20, EPTV}, {0x24, EPTV}};
    static const struct reason irq[] = {{0, IRQX}};
    struct sent e = {KVM_EXIT, TID, {[RET] = 2}};

    load_formats("arm64-6.1-mix2.dat", HARDWARE, 1);
    is_table(
        &e, ESR_EC, 0xff, trap, SIZE(trap), "arm64: each class of traps has its column or none");
    e.values[RET] = 0x80000002; /* an SError is pending as well */
    is_table(&e, ESR_EC, 0xff, trap, SIZE(trap), "arm64: also with an SError");
    e.values[RET] = 0xbadca11; /* the hypervisor is gone */
    is_table(&e, ESR_EC, 0xff, NULL, 0, "arm64: esr_ec says nothing of another exception");
    e.values[ESR_EC] = 0x24;
    is_table(&e, RET, 1, irq, SIZE(irq), "arm64: an IRQ has its column, an SError none");
}

static void test_riscv64_reasons(void)
{
    static const struct reason exceptions[] = {{0x14, EPTV}, {0x15, EPTV}, {0x17, EPTV}};
    static const struct reason halt[] = {{0x14, EPTV}, {0x15, EPTV}, {0x16, HALTX}, {0x17, EPTV}};
    struct sent e = {KVM_EXIT, TID, {[STVAL] = 0x10600073}}; /* another instruction than WFI */

    load_formats("riscv64-6.12-mix2.dat", HARDWARE, 1);
    is_table(&e, SCAUSE, 0xff, exceptions, SIZE(exceptions),
        "RISC-V: each exception has its column or none");
    e.values[STVAL] = 0x10500073;
    is_table(&e, SCAUSE, 0xff, halt, SIZE(halt), "RISC-V: WFI is a halt");
    for (uint64_t i = 0; i < 0x20; i++) {
        e.values[SCAUSE] = UINT64_C(1) << 63 | i;
        if (column_of(&e) != IRQX)
            break;
    }
    ok(e.values[SCAUSE] == (UINT64_C(1) << 63 | 0x1f) && column_of(&e) == IRQX,
        "RISC-V: an interrupt is one, whatever its number");
}

/* RISC-V's kvm_userspace_exit, which tells what kvm_mmio does elsewhere. */
static void test_riscv64_mmio(void)
{
    struct sent fault = {KVM_EXIT, TID, {[SCAUSE] = 0x17}};
    struct sent user = {KVM_USERSPACE_EXIT, TID, {[REASON] = KVM_EXIT_MMIO}};
    struct sent other = {KVM_USERSPACE_EXIT, TID, {[REASON] = KVM_EXIT_HLT}};
    struct sent failed = {
        KVM_USERSPACE_EXIT, TID, {[REASON] = KVM_EXIT_MMIO, [ERRNO] = (uint32_t)-EINTR}};
    static const uint64_t wanted[NCOUNTERS] = {[EXITS] = 4, [MMIOX] = 1, [EPTV] = 3};

    /* The first one's exit was before tracing began. */
    const struct sent *sent[] = {
        &user, &fault, &user, &user, &fault, &other, &fault, &failed, &fault};

    load_formats("riscv64-6.12-mix2.dat", HARDWARE, 1);
    add_thread(TID, TID, 0);
    for (size_t i = 0; i < SIZE(sent); i++)
        put(0, i + 1, sent[i]);
    read_until(UINT64_MAX);
    settle_exits(UINT64_MAX);
    find_all_vcpus();
    is_counts(counts_of(TID, 0), wanted,
        "RISC-V: a fault is MMIO if it goes to user space as such, once, and without an error");
}

/* The last fault of a guest that has ended: its kvm_mmio may be in a buffer yet. */
static void test_last_fault(void)
{
    struct sent fault = vmx_exit(TID, 0, 48), mmio = {KVM_MMIO, TID, {[TYPE] = MMIO_WRITE}};

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put(0, 10, &fault);
    put(0, 30, &mmio);
    read_until(20);
    known_guest(TID)->gone = 40;
    settle_exits(20);
    read_until(UINT64_MAX);
    ok(counts_of(TID, 0)[MMIOX] == 1 && counts_of(TID, 0)[EPTV] == 0,
        "a guest that has ended: what it did in the end is counted before its fault is settled");
    put(0, 35, &fault);
    read_until(UINT64_MAX);
    settle_exits(50);
    ok(counts_of(TID, 0)[EPTV] == 1, "and then without waiting");
}

static void test_user_reasons(void)
{
    static const struct reason user[] = {{2, IOX}, {5, HALTX}, {6, MMIOX}, {7, IRQWX}};
    struct sent e = {KVM_USERSPACE_EXIT, TID, {0}};

    make_host(SOFTWARE, 1);
    is_table(
        &e, REASON, 0xffff, user, SIZE(user), "user space: each reason has its column or none");
}

/* A kvm_exit without isa, as of an architecture that is not known. */
static void test_other_reasons(void)
{
    struct sent e = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 1);
    events[KVM_EXIT].fields[ISA].size = 0;
    is_table(&e, EXIT_REASON, 0xffff, NULL, 0, "an unknown architecture's exits have no column");
}

static const struct test reasons_tests[] = {
    {"vmx_reasons", test_vmx_reasons},
    {"svm_reasons", test_svm_reasons},
    {"arm64_reasons", test_arm64_reasons},
    {"riscv64_reasons", test_riscv64_reasons},
    {"riscv64_mmio", test_riscv64_mmio},
    {"last_fault", test_last_fault},
    {"user_reasons", test_user_reasons},
    {"other_reasons", test_other_reasons},
};
