/*
 * formats - descriptions of events and sub-buffers, as tracefs and recordings have them
 *
 * A part of unit.c, which includes it.
 */

#define COMMON_FORMAT                                                                              \
    "name: kvm_exit\nID: 1473\nformat:\n"                                                          \
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"                         \
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"

/* parse_format() of a text, in a block of its own size: the id, or -1. */
static int parse_boxed(struct event_type *type, const char *text, size_t size)
{
    char *copy = boxed_text(text, size);
    int id = parse_format(type, copy) ? type->id : -1;

    free(copy);
    return id;
}

/* Whether a field of an event is at the given place. */
static bool is_at(const struct event_type *type, enum field_name field, size_t offset, size_t size)
{
    return type->fields[field].offset == offset && type->fields[field].size == size;
}

/* Tests that a format with this line gives no field of the given name. */
static void is_no_field(const char *text, enum field_name field, const char *name)
{
    char format[1024];
    struct event_type type = {.name = NULL};

    snprintf(format, sizeof(format), COMMON_FORMAT "%s", text);
    int id = parse_boxed(&type, format, strlen(format));
    ok(id == 1473 && is_at(&type, COMMON_PID, 4, 4) && type.fields[field].size == 0, "%s", name);
}

static void test_format(void)
{
    static const char text[] =
        COMMON_FORMAT "\tfield:unsigned int exit_reason;\toffset:8;\tsize:4;\tsigned:0;\n"
                      "\tfield:unsigned long guest_rip;\toffset:16;\tsize:8;\tsigned:0;\n"
                      "\tfield:u32 isa;\toffset:24;\tsize:4;\tsigned:0;\n"
                      "\tfield:u64 info1;\toffset:32;\tsize:8;\tsigned:0;\n"
                      "\tfield:__u8 insn[15];\toffset:40;\tsize:15;\tsigned:0;\n"
                      "\tfield:__data_loc char[] name;\toffset:56;\tsize:4;\tsigned:0;\n"
                      "\tfield:unsigned int vcpu_id;\toffset:60;\tsize:4;\tsigned:0;\n\n"
                      "print fmt: \"vcpu %u reason %s\", REC->vcpu_id, REC->isa == 1\n";
    struct event_type whole = {.name = NULL}, part;
    bool right = true;

    ok(parse_boxed(&whole, text, strlen(text)) == 1473, "a format has the event's id");
    ok(is_at(&whole, COMMON_PID, 4, 4) && is_at(&whole, EXIT_REASON, 8, 4) &&
            is_at(&whole, ISA, 24, 4) && is_at(&whole, INFO1, 32, 8) &&
            is_at(&whole, VCPU_ID, 60, 4),
        "and where its fields are");
    ok(is_at(&whole, RET, 0, 0) && is_at(&whole, REASON, 0, 0) && is_at(&whole, PID, 0, 0),
        "a field that it does not have has no size, nor one whose name ends so");
    for (size_t cut = 0; cut < strlen(text); cut++) {
        part = (struct event_type){.name = NULL};
        int id = parse_boxed(&part, text, cut);
        right &= id == -1 || id == 1473;
        for (int i = 0; i < NFIELDS; i++)
            right &= part.fields[i].size == 0 ||
                     memcmp(&part.fields[i], &whole.fields[i], sizeof(struct field)) == 0;
    }
    ok(right, "a format that is cut anywhere has fewer fields, no other ones");
}

static void test_bad_formats(void)
{
    static const char *const bad[] = {"", "ID:", "ID: 0\n", "ID: -5\n", "ID: 65536\n",
        "ID: 99999999999999999999\n", "ID: x\n", "format:\n", "\n\n\n", "field:", "ID: 5\n"};
    bool right = true;

    for (size_t i = 0; i < SIZE(bad); i++) {
        struct event_type type = {.name = NULL};
        char text[1024];
        right &= parse_boxed(&type, bad[i], strlen(bad[i])) == -1;
        /* Neither with fields, but for the last one, which has all but these. */
        snprintf(text, sizeof(text), "%s%s", bad[i], strstr(COMMON_FORMAT, "\tfield"));
        right &= parse_boxed(&type, text, strlen(text)) == (i + 1 < SIZE(bad) ? -1 : 5);
    }
    ok(right, "a format without an id from 1 to 65535, or without common_pid, is refused");
    is_no_field("\tfield:int isa;\tsize:4;\n", ISA, "a field without an offset is none");
    is_no_field("\tfield:int isa;\toffset:4;\n", ISA, "a field without a size is none");
    is_no_field("\tfield:int isa;\n\tfield:int ret;\toffset:8;\tsize:4;\n", ISA,
        "a field does not get the next one's offset and size");
    is_no_field("\tfield:int isa\toffset:4 size:4\n", ISA, "a field without a semicolon is none");
    is_no_field(
        "\tfield:int isa;\toffset:4;\tsize:4;", ISA, "a field without the line's end is none");
    is_no_field(
        "\tfield:int isa;\toffset:65535;\tsize:4;\n", ISA, "an offset of 65535 is too large");
    is_no_field("\tfield:int isa;\toffset:-1;\tsize:4;\n", ISA, "a negative offset is too large");
    is_no_field("\tfield:int isa;\toffset:18446744073709551616;\tsize:4;\n", ISA,
        "an offset that no number holds is too large");
    is_no_field("\tfield:int isa;\toffset:8;\tsize:9;\n", ISA, "a size of 9 bytes is too large");
    is_no_field("\tfield:int isa;\toffset:8;\tsize:-4;\n", ISA, "a negative size is too large");
    is_no_field(
        "\tfield:int xisa;\toffset:8;\tsize:4;\n", ISA, "a name that ends like another is another");
    is_no_field("\tfield:int isa_;\toffset:8;\tsize:4;\n", ISA,
        "a name that starts like another is another");
}

/* Values of fields in an event that ends before, at and behind them. */
static void test_field_values(void)
{
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const struct {
        struct field f; /* where */
        uint64_t value; /* its value */
    } values[] = {{{0, 1}, 1}, {{7, 1}, 8}, {{0, 2}, 0x0201}, {{6, 2}, 0x0807},
        {{4, 4}, 0x08070605}, {{1, 4}, 0x05040302}, {{0, 8}, 0x0807060504030201}, {{0, 0}, 0},
        {{7, 2}, 0}, {{5, 4}, 0}, {{1, 8}, 0}, {{8, 1}, 0}, {{UINT16_MAX, 8}, 0}, {{0, 3}, 0}};
    uint8_t *data = boxed(bytes, sizeof(bytes));
    struct record r = {.data = data, .size = sizeof(bytes)};
    bool right = true;

    for (size_t i = 0; i < SIZE(values); i++)
        right &= field_value(&r, values[i].f) == values[i].value;
    free(data);
    ok(right, "a field's value is its bytes', and 0 if the event does not have them all");
}

/* Formats of a real host with some bytes changed. */
static void test_damaged_formats(void)
{
    enum { ROUNDS = 20000 };
    static const char text[] = COMMON_FORMAT "\tfield:u32 isa;\toffset:24;\tsize:4;\tsigned:0;\n";
    bool right = true;

    for (int i = 0; i < ROUNDS; i++) {
        struct event_type type = {.name = NULL};
        char *copy = boxed_text(text, strlen(text));
        for (uint64_t n = 1 + chance() % 4; n > 0; n--)
            copy[chance() % strlen(text)] = (char)chance();
        int id = parse_format(&type, copy) ? type.id : -1;
        right &= id == -1 || (id > 0 && id <= UINT16_MAX && type.fields[COMMON_PID].size != 0);
        for (int j = 0; j < NFIELDS; j++)
            right &= type.fields[j].offset < UINT16_MAX && type.fields[j].size <= 8;
        free(copy);
    }
    ok(right, "%d damaged formats are refused, or have sizes and offsets that can be", ROUNDS);
}

#define TIME_LINE "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
#define COMMIT_LINE "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
#define OVERWRITE_LINE "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
#define DATA_LINE "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n"

/* parse_header_page() of a text, in a block of its own size. */
static bool parse_boxed_page(struct page_layout *page, const char *text, size_t size)
{
    char *copy = boxed_text(text, size);
    bool good = parse_header_page(page, copy);

    free(copy);
    return good;
}

static void test_header_page(void)
{
    static const char text[] = TIME_LINE COMMIT_LINE OVERWRITE_LINE DATA_LINE;
    static const char text32[] =
        TIME_LINE "\tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;\n" OVERWRITE_LINE
                  "\tfield: char data;\toffset:12;\tsize:4084;\tsigned:1;\n";
    static const char large[] =
        TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:16;\tsize:65520;\tsigned:1;\n";
    struct page_layout page;
    bool right = true;

    ok(parse_boxed_page(&page, text, strlen(text)) && memcmp(&page, &layout64, sizeof(page)) == 0,
        "header_page has the layout of a sub-buffer");
    ok(parse_boxed_page(&page, text32, strlen(text32)) &&
            memcmp(&page, &layout32, sizeof(page)) == 0,
        "also that of a 32-bit kernel");
    ok(parse_boxed_page(&page, large, strlen(large)) && page.size == 65536,
        "also that of larger pages");
    for (size_t cut = 0; cut < strlen(text); cut++)
        right &= !parse_boxed_page(&page, text, cut);
    ok(right, "header_page that is cut anywhere is refused");
}

static void test_bad_header_pages(void)
{
    static const struct {
        const char *text; /* header_page */
        const char *name; /* what is wrong with it */
    } bad[] = {
        {COMMIT_LINE DATA_LINE, "no time stamp"},
        {TIME_LINE DATA_LINE, "no commit word"},
        {TIME_LINE COMMIT_LINE, "no data"},
        {"\tfield: u64 timestamp;\toffset:0;\tsize:4;\n" COMMIT_LINE DATA_LINE,
            "a short time stamp"},
        {"\tfield: u64 timestamp;\toffset:9;\tsize:8;\n" COMMIT_LINE DATA_LINE,
            "a time stamp in the data"},
        {"\tfield: u64 timestamp;\toffset:18446744073709551615;\tsize:8;\n" COMMIT_LINE DATA_LINE,
            "a time stamp nowhere"},
        {"\tfield: u64 timestamp;\toffset:-8;\tsize:8;\n" COMMIT_LINE DATA_LINE,
            "a time stamp before the page"},
        {TIME_LINE "\tfield: local_t commit;\toffset:8;\tsize:2;\n" DATA_LINE,
            "a short commit word"},
        {TIME_LINE "\tfield: local_t commit;\toffset:9;\tsize:8;\n" DATA_LINE,
            "a commit word in the data"},
        {TIME_LINE "\tfield: local_t commit;\toffset:-8;\tsize:8;\n" DATA_LINE,
            "a commit word before the page"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:16;\tsize:0;\n", "no room for data"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:16;\tsize:16777216;\n", "huge data"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:64;\tsize:4080;\n", "a huge header"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:-16;\tsize:4080;\n",
            "data before the page"},
    };
    struct page_layout page;

    for (size_t i = 0; i < SIZE(bad); i++)
        ok(!parse_boxed_page(&page, bad[i].text, strlen(bad[i].text)),
            "header_page is refused that has %s", bad[i].name);
}

/* Tests the names that a print fmt gives to the numbers 1 and 2, and to the second table's 5. */
static void is_symbols(const char *print, const char *wanted, const char *name)
{
    char *boxed_print = boxed_text(print, strlen(print)), got[256] = "", key[64];
    const uint64_t ids[] = {1, 2, 5 | SECOND_SYMBOLS};

    options.table = VMEXIT;
    symbols[0].n = symbols[1].n = 0;
    parse_symbols(boxed_print);
    for (size_t i = 0; i < SIZE(ids); i++) {
        key_name(ids[i], key, sizeof(key));
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s", i == 0 ? "" : " ", key);
    }
    is_text(got, wanted, name);
    free(boxed_print);
}

static void test_symbols(void)
{
#define X "print fmt: \"%s\", __print_symbolic(REC->x, "
    clear();
    is_symbols(X "{ 1, \"A\" }, { 0x2, \"B\" }), __print_symbolic(REC->y & 0xff, { 5, \"C\" })",
        "A B C", "names are those of print fmt");
    is_symbols(X "{(1), \"A\"}, {1 + 1, \"B\"}) {5, \"C\"}", "A B 0x5",
        "a number may be in parentheses, or a sum");
    is_symbols(X "{ 1, \"A\" \"B\" }, { 2 , \"C\"  \"D\" \"E\" })", "AB CDE 0x5",
        "a name may be of several strings");
    is_symbols(X "{ 7, \"A\" })", "0x1 0x2 0x5", "a number without a name is shown itself");
    is_symbols(X "{ 1, \"A\033[1m\t\" })", "A?[1m? 0x2 0x5", "no control byte is in a name");
    is_symbols(X "{ BIT(1), \"A\" }, { 2, \"B\" })", "0x1 B 0x5", "what is no number is left out");
    is_symbols("print fmt: \"%d\", REC->x", "0x1 0x2 0x5", "there may be no names");
    is_symbols(X "{ 1, \""
                 "0123456789012345678901234567890123456789"
                 "\" })",
        "012345678901234567890123456789012345678 0x2 0x5", "a long name is cut");
    static const char *const damaged[] = {X, X "{", X "{ 1", X "{ 1,", X "{ 1, \"", X "{ 1, \"A",
        X "{ 1, \"A\"", X "{}", X "{ 1 + ", X "{{{{", "__print_symbolic(", ""};
    for (size_t i = 0; i < SIZE(damaged); i++)
        is_symbols(damaged[i], "0x1 0x2 0x5", "a table that ends too soon");
#undef X
    free(symbols[0].list);
    free(symbols[1].list);
    memset(symbols, 0, sizeof(symbols));
}

static const struct test formats_tests[] = {
    {"format", test_format},
    {"bad_formats", test_bad_formats},
    {"field_values", test_field_values},
    {"damaged_formats", test_damaged_formats},
    {"header_page", test_header_page},
    {"bad_header_pages", test_bad_header_pages},
    {"symbols", test_symbols},
};
