/*
 * names - guests' names: found in command lines, cut, and put out
 *
 * A part of unit.c, which includes it.
 */

/* A command line as /proc/PID/cmdline has it; the literal's own NUL is the one behind. */
#define COMMAND(words) words, sizeof(words) - 1

static void test_names(void)
{
    static const struct {
        const char *command; /* the words, each with its NUL */
        size_t size;         /* bytes of them */
        const char *name;    /* the guest's, or NULL */
    } commands[] = {
        {COMMAND("qemu-system-x86_64\0-name\0x\0"), "x"},
        {COMMAND("/usr/bin/qemu-system-x86_64\0-m\0"
                 "512\0-name\0guest=x,debug-threads=on\0-S\0"),
            "x"},
        {COMMAND("qemu-kvm\0-name\0debug-threads=on,guest=x\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0x,debug-threads=on\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0x,process=y\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0process=y,guest=x\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0a,,b\0"), "a,b"},
        {COMMAND("qemu-kvm\0-name\0guest=a,,b,,,,c,process=d,,e\0"), "a,b,,c"},
        {COMMAND("qemu-kvm\0-name\0process=d,,guest=e,guest=x\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0guest=a=b\0"), "a=b"},
        {COMMAND("qemu-kvm\0-name\0guest=a,guest=b\0"), "b"},
        {COMMAND("qemu-kvm\0-name\0a,guest=b\0"), "b"},
        {COMMAND("qemu-kvm\0-name\0guest=x,guests=y\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0debug-threads=on\0"), NULL},
        {COMMAND("qemu-kvm\0-name\0guest=\0"), NULL},
        {COMMAND("qemu-kvm\0-name\0\0"), NULL},
        {COMMAND("qemu-kvm\0-name\0a b\n\377\0"), "a b\n\377"},
        {COMMAND("qemu-kvm\0--name\0guest=x,debug-threads=on\0"), "x"},
        {COMMAND("/opt/qemu/bin/qemu-system-aarch64\0--name\0a,,b\0"), "a,b"},
        {COMMAND("firecracker\0--id\0x\0"), "x"},
        {COMMAND("/usr/bin/firecracker\0--api-sock\0/run/s\0--id=x\0"), "x"},
        {COMMAND("firecracker\0--id\0a,b=c\0"), "a,b=c"},
        {COMMAND("firecracker\0--id=\0"), "firecracker"},
        {COMMAND("crosvm\0run\0--name\0x\0--mem\0"
                 "512\0"),
            "x"},
        {COMMAND("crosvm\0run\0--name=a,,b\0"), "a,,b"},
        {COMMAND("crosvm\0run\0--name\0a,,b\0"), "a,,b"},
        {COMMAND("firecracker\0--identity\0x\0--ids=y\0--names\0z\0--namesake=z\0"), "firecracker"},
        {COMMAND("firecracker\0--id"), "firecracker"},
        {COMMAND("firecracker\0--id\0"), "firecracker"},
        {COMMAND("crosvm\0--name\0"), "crosvm"},
        {COMMAND("qemu-kvm\0-name\0"), NULL},
        {COMMAND("qemu-kvm\0--name"), NULL},
        {COMMAND("qemu-kvm\0-m\0"
                 "512\0"),
            NULL},
        {COMMAND("name\0"), "name"},
        {COMMAND("\0"), NULL},
        {COMMAND("\0\0-name\0x\0"), "x"},
        /* One dash or two, whatever the monitor's file is called. */
        {COMMAND("/usr/libexec/kvm-wrapper\0--name\0guest=x,debug-threads=on\0"), "x"},
        {COMMAND("run\0--name\0debug-threads=on,guest=a,,b\0"), "a,b"},
        {COMMAND("run\0-name\0x\0"), "x"},
        {COMMAND("run\0-name=a,b\0"), "a,b"},
        {COMMAND("run\0-id\0a,b\0"), "a,b"},
        {COMMAND("run\0-id=x\0"), "x"},
        {COMMAND("/opt/bin/crosvm\0run\0-name\0a,b\0"), "a,b"},
        {COMMAND("lkvm\0run\0--name\0guest=x\0"), "guest=x"},
        {COMMAND("run\0---name\0x\0---id=x\0name\0x\0id=x\0-\0--\0"), "run"},
        /* Of several -name, QEMU takes the last that names the guest. */
        {COMMAND("qemu-kvm\0-name\0a\0-name\0guest=b\0"), "b"},
        {COMMAND("qemu-kvm\0-name\0a\0--name\0b,debug-threads=on\0-m\0001G\0"), "b"},
        {COMMAND("qemu-kvm\0-name\0a\0-name\0debug-threads=on\0"), "a"},
        {COMMAND("qemu-kvm\0-name\0-name\0-id\0b\0"), "-name"},
        {COMMAND("qemu-kvm\0-id\0x\0"), NULL},
        {COMMAND("run\0-id\0x\0-name\0y\0"), "y"},
        {COMMAND("run\0-id\0x\0-id\0y\0"), "y"},
        {COMMAND("/opt/app/hello\0-v\0"), "hello"},
        {COMMAND("/opt/app/\0-v\0"), NULL},
        /* As bug reports and documents show how they were started. */
        {COMMAND("/usr/bin/kvm\0-id\000109\0-name\0web1,debug-threads=on\0-no-shutdown\0-chardev\0"
                 "socket,id=qmp,path=/var/run/qemu-server/109.qmp,server=on,wait=off\0-mon\0"
                 "chardev=qmp,mode=control\0-smp\0004,sockets=1,cores=4,maxcpus=4\0"),
            "web1"},
        {COMMAND(
             "/usr/bin/qemu-system-x86_64\0-name\0guest=instance-0000abcd,debug-threads=on\0-S\0"
             "-object\0{\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"format\":\"raw\"}\0-uuid\0"
             "de2e2aef-82d2-4648-9c53-6d4e5dc16755\0"),
            "instance-0000abcd"},
        {COMMAND("/usr/libexec/qemu-kvm\0-name\0guest=default_vmi-fedora,debug-threads=on\0-S\0"),
            "default_vmi-fedora"},
        {COMMAND("/snap/lxd/26093/bin/qemu-system-x86_64\0-S\0-name\0test-2-cpu\0-uuid\0"
                 "de2e2aef-82d2-4648-9c53-6d4e5dc16755\0-daemonize\0-cpu\0host,hv_passthrough\0"
                 "-nographic\0-serial\0chardev:console\0-runas\0lxd\0"),
            "test-2-cpu"},
        {COMMAND(
             "/opt/kata/bin/qemu-system-x86_64\0-name\0sandbox-4771496e,debug-threads=on\0-uuid\0"
             "fa5b\0"),
            "sandbox-4771496e"},
        {COMMAND("/root/Android/emulator/qemu/linux-x86_64/"
                 "qemu-system-x86_64\0-avd\0Pixel_4\0-no-window\0"),
            "Pixel_4"},
        {COMMAND("/firecracker\0--id\000551e7604-e35c-42b3-b825-416853441234\0--start-time-us\000"
                 "1234\0--start-time-cpu-us\00056\0--parent-cpu-time-us\0004375\0"),
            "551e7604-e35c-42b3-b825-416853441234"},
        {COMMAND("/firecracker\0--id=vm7\0--seccomp-level=2\0--api-sock=/api.socket\0"), "vm7"},
        {COMMAND("./firecracker\0--api-sock\0/tmp/web.sock\0"), "web.sock"},
        {COMMAND(
             "firecracker\0--api-sock\0/run/vc/firecracker/4771496e/root/run/firecracker.socket\0"),
            "4771496e"},
        {COMMAND(
             "/opt/kata/bin/cloud-hypervisor\0--api-socket\0/run/vc/vm/4771496e/clh-api.sock\0"),
            "4771496e"},
        {COMMAND("/opt/kata/bin/cloud-hypervisor\0--api-socket\0/run/kata/4771496e/ch-api.sock\0"),
            "4771496e"},
        {COMMAND(
             "./cloud-hypervisor\0--kernel\0./hypervisor-fw\0--api-socket\0path=/tmp/db.sock\0"),
            "db.sock"},
        {COMMAND("cloud-hypervisor-static\0--api-socket=path=db.sock\0"), "db.sock"},
        {COMMAND("cloud-hypervisor\0--api-socket\0fd=20\0--event-monitor\0"
                 "path=/var/run/libvirt/ch/lisa-test-0-event-monitor-fifo\0"),
            "lisa-test-0"},
        {COMMAND("cloud-hypervisor\0--kernel\0vmlinux\0"), "cloud-hypervisor"},
        {COMMAND("/apex/com.android.virt/bin/crosvm\0run\0--disable-sandbox\0--name\0microdroid\0"
                 "--socket\0/data/misc/virtualizationservice/2048/crosvm.sock\0"),
            "microdroid"},
        {COMMAND("/usr/bin/crosvm\0run\0--socket\0/run/vm/vm.u8ZkEH/crosvm.sock\0"), "vm.u8ZkEH"},
        {COMMAND("crosvm\0run\0--socket=/tmp/cf_avd_1000/cvd-2/internal/crosvm_control.sock\0"),
            "cvd-2"},
        {COMMAND("./lkvm\0run\0-k\0Image\0--name\0testvm\0-m\000512\0"), "testvm"},
        {COMMAND("runsc-sandbox\0--root=/var/run/runsc\0--platform=kvm\0boot\0--bundle=/root\0"
                 "--pidns=true\0--attached\0mycontainer\0"),
            "mycontainer"},
        {COMMAND("runsc-sandbox\0"), "runsc-sandbox"},
        {COMMAND("/usr/lib/virtualbox/VBoxHeadless\0--comment\0minikube VM\0--startvm\0"
                 "cb568998-d8b4-40d4-a6e7-c92aea5aee3d\0--vrde\0config\0"),
            "minikube VM"},
        {COMMAND("VBoxHeadless\0-startvm\0Sage-6.6\0"), "Sage-6.6"},
        {COMMAND("/usr/lib/virtualbox/VirtualBoxVM\0--comment\0a,,b\0--startvm\0"
                 "cb568998-d8b4-40d4-a6e7-c92aea5aee3d\0--no-startvm-errormsgbox\0"),
            "a,,b"},
        {COMMAND("/opt/kata/bin/containerd-shim-kata-v2\0-namespace\0default\0-address\0"
                 "/run/containerd/containerd.sock\0-id\0004771496e\0"),
            "4771496e"},
        /* A long command line is cut. */
        {COMMAND("qemu-kvm\0-name\0guest=x,,"), "x,"},
        {COMMAND("qemu-kvm\0-name\0guest=x,"), "x"},
        {COMMAND("qemu-kvm\0-name\0gue"), "gue"},
    };

    for (size_t i = 0; i < SIZE(commands); i++) {
        char text[512] = "the guest's name in: ";
        size_t used = strlen(text);
        for (size_t j = 0; j < commands[i].size; j++) {
            char c = commands[i].command[j];
            text[used++] = c == '\0' || c == '\n' ? ' ' : c == '\377' ? '?' : c;
        }
        text[used] = '\0';
        char *command = boxed_text(commands[i].command, commands[i].size);
        char *name = name_in_command(command, commands[i].size);
        is_text(name, commands[i].name, text);
        free(command);
    }
}

/* Tests what put_name() makes of name. */
static void is_put(const char *name, const char *wanted, const char *what)
{
    struct text t = {.s = NULL};
    char *copy = boxed_text(name, strlen(name));

    put_name(&t, copy);
    put_bytes(&t, "", 1);
    is_text(t.s, wanted, what);
    free(copy);
    free(t.s);
}

static void test_put_name(void)
{
    char byte[2] = "", wanted[8];
    bool right = true;

    is_put("", "", "an empty name is empty");
    is_put("web 1,2=3~", "web 1,2=3~", "ASCII stays");
    is_put("a\\b", "a\\\\b", "a backslash is doubled");
    is_put("\t\n\r\x1b[2J\x01\x1f", "\\x09\\x0a\\x0d\\x1b[2J\\x01\\x1f",
        "control characters are not put out");
    is_put("a\x7f", "a\\x7f", "DEL is not put out");
    is_put("\xc2\x80\xc2\x9b\xc2\x9f", "\\xc2\\x80\\xc2\\x9b\\xc2\\x9f",
        "C1 controls are not put out");
    is_put("\xc2\xa0\xc3\xa9\xdf\xbf", "\xc2\xa0\xc3\xa9\xdf\xbf", "UTF-8 of two bytes stays");
    is_put("\xe0\xa0\x80\xe2\x82\xac\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
        "\xe0\xa0\x80\xe2\x82\xac\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
        "UTF-8 of three bytes stays");
    is_put("\xf0\x90\x80\x80\xf0\x9f\x90\xa7\xf4\x8f\xbf\xbf",
        "\xf0\x90\x80\x80\xf0\x9f\x90\xa7\xf4\x8f\xbf\xbf", "UTF-8 of four bytes stays");
    is_put(
        "\xc0\x8a\xc1\xbf", "\\xc0\\x8a\\xc1\\xbf", "overlong UTF-8 of two bytes is not put out");
    is_put("\xe0\x80\x8a\xe0\x9f\xbf", "\\xe0\\x80\\x8a\\xe0\\x9f\\xbf",
        "overlong UTF-8 of three bytes is not put out");
    is_put("\xf0\x80\x80\x8a\xf0\x8f\xbf\xbf", "\\xf0\\x80\\x80\\x8a\\xf0\\x8f\\xbf\\xbf",
        "overlong UTF-8 of four bytes is not put out");
    is_put(
        "\xed\xa0\x80\xed\xbf\xbf", "\\xed\\xa0\\x80\\xed\\xbf\\xbf", "surrogates are not put out");
    is_put("\xf4\x90\x80\x80\xf7\xbf\xbf\xbf", "\\xf4\\x90\\x80\\x80\\xf7\\xbf\\xbf\\xbf",
        "what is above U+10FFFF is not put out");
    is_put("\x80g\xbf\xf8\x90\x80\x80\x80\xfe\xff",
        "\\x80g\\xbf\\xf8\\x90\\x80\\x80\\x80\\xfe\\xff",
        "bytes that start no character are not put out");
    is_put("\xc3(\xe2\x82(\xf0\x9f\x90(\xc3\xc3\xa9",
        "\\xc3(\\xe2\\x82(\\xf0\\x9f\\x90(\\xc3\xc3\xa9",
        "an unfinished character does not swallow the next one");
    is_put("a\xe2\x80\xaeg\xe2\x80\x8b", "a\\xe2\\x80\\xaeg\\xe2\\x80\\x8b",
        "what changes the direction, or has no width, is not put out");
    is_put("\xc3", "\\xc3", "one of two bytes at the end");
    is_put("\xe2\x82", "\\xe2\\x82", "two of three bytes at the end");
    is_put("\xf0\x9f\x90", "\\xf0\\x9f\\x90", "three of four bytes at the end");
    for (int c = 1; c < 256; c++) {
        struct text t = {.s = NULL};
        byte[0] = (char)c;
        snprintf(wanted, sizeof(wanted),
            c < 0x20 || c >= 0x7f ? "\\x%02x"
            : c == '\\'           ? "\\\\"
                                  : "%c",
            (unsigned)c);
        put_name(&t, byte);
        right &= t.size == strlen(wanted) && memcmp(t.s, wanted, t.size) == 0;
        free(t.s);
    }
    ok(right, "each byte by itself is put out as it is, or as what it is");
}

/* The UTF-8 of c, in buf. */
static const char *utf8(uint32_t c, char buf[static 5])
{
    size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    for (size_t i = size; i-- > 1; c >>= 6)
        buf[i] = (char)(0x80 | (c & 0x3f));
    buf[0] = (char)(size == 1 ? c : (0xf00u >> size & 0xf0) | c);
    buf[size] = '\0';
    return buf;
}

static void test_hidden(void)
{
    /* The first and the last of each range of Cf, Zl and Zp, as perl's \p{Cf} and so on has them.
     */
    static const uint32_t ranges[][2] = {{0xad, 0xad}, {0x600, 0x605}, {0x61c, 0x61c},
        {0x6dd, 0x6dd}, {0x70f, 0x70f}, {0x890, 0x891}, {0x8e2, 0x8e2}, {0x180e, 0x180e},
        {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb},
        {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f}, {0x1bca0, 0x1bca3},
        {0x1d173, 0x1d17a}, {0xe0000, 0xe007f}};
    char buf[5], strange[64] = "";

    for (size_t i = 0; i < SIZE(ranges); i++) {
        uint32_t first = ranges[i][0], last = ranges[i][1];
        bool right = printable(utf8(first, buf)) == 0 && printable(utf8(last, buf)) == 0 &&
                     (printable(utf8(first - 1, buf)) != 0 || first == 0x600) &&
                     printable(utf8(last + 1, buf)) != 0;
        if (!right)
            snprintf(strange, sizeof(strange), "U+%04X to U+%04X", first, last);
    }
    is_text(strange, "", "format characters and separators of lines are not put out, others are");
}

/* Tests that n times s and what is behind is cut to what is kept, in no character's middle. */
static void is_cut(const char *s, size_t n, const char *behind, size_t wanted)
{
    char *name = resize(NULL, n * strlen(s) + strlen(behind) + 1, 1);

    name[0] = '\0';
    for (size_t i = 0; i < n; i++)
        strcpy(name + i * strlen(s), s);
    strcat(name, behind);
    cut_name(name);
    ok(strlen(name) == wanted, "%zu of \"%s\" and \"%s\": %zu bytes, wanted %zu", n, s, behind,
        strlen(name), wanted);
    free(name);
}

static void test_cut_name(void)
{
    is_cut("a", MAX_NAME, "", MAX_NAME);
    is_cut("a", MAX_NAME, "bc", MAX_NAME);
    is_cut("a", MAX_NAME - 1, "\xc3\xa9", MAX_NAME - 1);
    is_cut("\xc3\xa9", 600, "", MAX_NAME - 1);
    is_cut("\xe2\x82\xac", 400, "", MAX_NAME);
    is_cut("\xf0\x9f\x90\xa7", 300, "", MAX_NAME - 3);
    is_cut("\xe2\x80\x8b", 342, "", MAX_NAME);
    is_cut("\xff", 2000, "", MAX_NAME);
    is_cut("a", MAX_NAME - 1, "\xe2\x82", MAX_NAME);
}

static const struct test names_tests[] = {
    {"names", test_names},
    {"put_name", test_put_name},
    {"hidden", test_hidden},
    {"cut_name", test_cut_name},
};
