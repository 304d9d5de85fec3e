#!/usr/bin/perl
# Makes recordings that nobody made by recording: each is to cost kvmstat -r far more than its
# size.  Run by tests/hostile.t.
#
# usage: hostile.pl KIND [NUMBER] >FILE
use strict;
use warnings;

my ($kind, $number) = @ARGV;
my $PAGE = 4096;    # bytes of a sub-buffer

# A line of a format.
sub field {
	my ($name, $offset, $size) = @_;
	return "\tfield:$name;\toffset:$offset;\tsize:$size;\tsigned:0;\n";
}

# The format of an event whose fields, after the first two, have the given names and 4 bytes each.
sub format_of {
	my ($name, $id, @names) = @_;
	my $at = 4;
	return "name: $name\nID: $id\n" . field('unsigned short common_type', 0, 2) .
		join('', map { $at += 4; field($_, $at - 4, 4) } 'int common_pid', @names);
}

# The description of sub-buffers of the given size.
sub header_page {
	my ($size) = @_;
	return field('u64 timestamp', 0, 8) . field('local_t commit', 8, 4) .
		field('char data', 12, $size - 12);
}

# An event of the given type, thread and values, some nanoseconds after the one before.
sub event {
	my ($id, $tid, $delta, @values) = @_;
	my $body = pack('vx2VV*', $id, $tid, @values);
	return pack('V', $delta << 5 | length($body) / 4) . $body;
}

# A sub-buffer whose first event's time is the given one and has a delta of 0.
sub subbuf {
	my ($time, @events) = @_;
	my $events = join('', @events);
	return pack("Q<Va" . ($PAGE - 12), $time, length($events), $events);
}

# Sub-buffers of many events, a microsecond apart.
sub subbufs {
	my ($time, @events) = @_;
	my ($all, @some, $size) = ('');
	for my $event (@events, undef) {
		if (!defined $event || ($size // 0) + length($event) > $PAGE - 12) {
			$all .= subbuf($time, @some) if @some;
			$time += 1000 * @some;
			(@some, $size) = ();
		}
		push @some, $event if defined $event;
		$size += length($event // '');
	}
	return $all;
}

# An option of the header.
sub option { return pack('vV/a*', @_) }

# A GUEST option of process pid, as trace-cmd has it: pairs of a vCPU and a thread.
sub guest {
	my ($name, $pid, @pairs) = @_;
	return option(13, "$name\0" . pack('Q<VV*', $pid, @pairs / 2, @pairs));
}

# Writes the recording: formats, options, sub-buffers of each CPU; more tables of those that are
# in the last of them.
sub write_recording {
	my ($page, $formats, $options, $cpus, $more) = @_;
	my @systems = ref($formats->[0]) ? @$formats : ($formats);
	my $text = "\x17\x08\x44tracing6\0\0\x08" . pack('V', 4096) . "header_page\0" .
		pack('Q</a*', $page) . "header_event\0" . pack("Q<VV", 0, 0, scalar @systems) .
		join("", map { pack("Z*V(Q</a*)*", "kvm", scalar @$_, @$_) } @systems) .
		pack('VVQ<V', 0, 0, 0, scalar @$cpus) . "options  \0" . $options;
	my $table = 10 + 16 * @$cpus;
	my $first = length($text) + ($more // 0) * 14 + 2 + $table; # of the other tables
	my $at = $first + ($more // 0) * $table;
	$text .= pack('vVQ<', 3, 8, $first + $_ * $table) for 0 .. ($more // 0) - 1;
	$text .= pack('v', 0);
	for (0 .. ($more // 0)) {
		$text .= "flyrecord\0";
		for my $cpu (@$cpus) {
			$text .= pack('Q<2', $at, length($cpu));
			$at += length($cpu);
		}
	}
	print $text, (join('', @$cpus)) x (1 + ($more // 0));
}

my @exit = (format_of('kvm_exit', 1, 'unsigned int exit_reason', 'u32 isa', 'unsigned int vcpu_id'),
	format_of('kvm_inj_virq', 2), format_of('kvm_emulate_insn', 3), format_of('kvm_mmio', 4));

my %kinds = (
	# Names as long as options can be.
	names => sub {
		my $options = join('', map { guest('n' x 65000, $_, 0, $_) } 1 .. $number);
		write_recording(header_page($PAGE), \@exit, $options, [subbuf(1000, event(1, 1, 0, 12, 1, 0))]);
	},
	# Sub-buffers of 13 bytes, each of a CPU of its own.
	tiny => sub {
		write_recording(header_page(13), \@exit, '', [(pack('Q<Vx', 1000, 0)) x 16384], $number);
	},
	# Events in different sub-buffers of several megabytes, of which each CPU has one.
	large => sub {
		$PAGE = 1 << 19;
		write_recording(header_page($PAGE), \@exit, '',
			[map { subbuf(1000 + $_, event(1, 1, 0, 12, 1, 0)) } 1 .. $number]);
	},
	# Names of reasons, and vCPUs that have all reasons, in each interval.
	symbols => sub {
		my $names = join(', ', map { "{$_,\"$_\"}" } map { $_ * 7 % 4001 } 1 .. $number);
		my @formats = @exit;
		$formats[0] .= "print fmt: \"%s\", __print_symbolic(REC->exit_reason, $names)\n";
		my @events = map { my $vcpu = $_; map { event(1, 9, 1000, 4000 - $_, 1, $vcpu) } 0 .. 999 } 0 .. 119;
		write_recording(header_page($PAGE), \@formats, '', [subbufs(1000, @events)]);
	},
	# An event now and then, and vCPUs that do nothing.
	quiet => sub {
		my $options = guest('q', 7, map { ($_, 0) } 0 .. 499);
		my @subbufs = map { subbuf($_ * 9e12, event(1, 9, 0, 12, 1, 0)) } 1 .. 5;
		write_recording(header_page($PAGE), \@exit, $options, [join('', @subbufs)]);
	},
	# Formats of nothing.
	formats => sub {
		write_recording(header_page($PAGE), [\@exit, ([("") x 65535]) x $number], "",
			[subbuf(1000, event(1, 1, 0, 12, 1, 0))]);
	},
	# Threads, each of which ran one vCPU, before those of another guest; events do not tell which.
	threads => sub {
		my @formats = (format_of('kvm_userspace_exit', 1, 'u32 reason', 'int errno'), @exit[1 .. 3]);
		my $options = guest('many', 1000, map { (0, 100000 + $_) } 1 .. $number) .
			guest('root', 2000, 0, 2001, 1, 2002);
		my @events = map { event(1, 100000 + $_, 1000, 5, 0) } 1 .. $number;
		push @events, (event(1, 2001, 1000, 5, 0), event(1, 2002, 1000, 2, 0)) x 10;
		write_recording(header_page($PAGE), \@formats, $options, [subbufs(1000, @events)]);
	},
	# Keys of many vCPUs, as many as are told apart of one.
	keys => sub {
		my @formats = (format_of('kvm_pio', 1, 'unsigned int port', 'unsigned int vcpu_id'));
		my @events = map { my $vcpu = $_; map { event(1, 9, 1000, $_ * 3, $vcpu) } 1 .. 1000 } 1 .. $number;
		write_recording(header_page($PAGE), \@formats, '', [subbufs(1000, @events)]);
	},
	# Processes that share an option with a long name, but each have a copy of it.
	processes => sub {
		my $options = guest('p' x 1000, 0, map { (0, $_) } 1 .. $number);
		write_recording(header_page($PAGE), \@exit, $options, [subbuf(1000, event(1, 1, 0, 12, 1, 0))]);
	},
	# Guests of one vCPU.
	guests => sub {
		my $options = join('', map { guest('g' x 900, $_, 0, $_) } 1 .. $number);
		my @events = map { event(1, $_, 1000, 12, 1, 0) } 1 .. $number;
		write_recording(header_page($PAGE), \@exit, $options, [subbufs(1000, @events)]);
	},
);
binmode(STDOUT);
$kinds{$kind}->();
close(STDOUT) or die "$!\n";
