#!/usr/bin/perl
# Makes of a recording of a plain guest on an AMD host one as a host with an SEV-ES guest would
# make it, by what the kernel's source says: nobody recorded it.  An exit for HLT, port I/O, MMIO,
# an MSR or CPUID becomes VMGEXIT, and a kvm_vmgexit_enter that tells the reason takes the place of
# events behind it, which the guest's owner would see, too.  Run by tests/sev.t.
#
# usage: sev.pl [silent] <RECORDING >FILE
# silent: kvm_mmio becomes an event of no type, as if none had fired.
use strict;
use warnings;

my $silent = @ARGV;
local $/;
my $file = <STDIN>;
my %id = $file =~ /name: (kvm_\w+)\nID: (\d+)/g;
my %reason = (0x78 => 0x78, 0x7b => 0x7b, 0x7c => 0x7c, 0x72 => 0x72);
my ($VMGEXIT, $NPF, $MMIO_WRITE) = (0x403, 0x400, 2);
my ($READ, $WRITE) = (0x80000001, 0x80000002);    # reasons of VMGEXIT for MMIO
my $SIZE = 44;    # bytes of a kvm_vmgexit_enter, with its header

# The events of the sub-buffer at $page: offset, bytes, delta, type and thread; no time extends.
sub events {
	my ($page) = @_;
	my ($at, @events) = (16);
	my $end = $at + (unpack('V', substr($file, $page + 8, 4)) & 0xfffff);
	while ($at < $end) {
		my ($head, $id, $tid) = unpack('VvxxV', substr($file, $page + $at, 12) . "\0" x 12);
		my ($words, $delta) = ($head & 31, $head >> 5);
		my $size = $words <= 28 ? 4 + 4 * $words : $words == 29 ? $end - $at : 8;
		die 'a long event' if $words == 0;
		push @events, { at => $page + $at, size => $size, delta => $delta,
			id => $words > 28 ? 0 : $id, tid => $tid };
		$at += $size;
	}
	return @events;
}

# The reason that the guest would have given for the exit $events[$i]; undef: it has no such.
sub reason_of {
	my ($i, @events) = @_;
	my ($exit, $after) = ($events[$i]);
	my $reason = unpack('V', substr($file, $exit->{at} + 12, 4));
	return $reason{$reason} if $reason != $NPF;
	while (defined($after = $events[++$i]) && $after->{tid} == $exit->{tid}) {
		return if $after->{id} == $id{kvm_entry} || $after->{id} == $id{kvm_exit};
		return unpack('V', substr($file, $after->{at} + 12, 4)) == $MMIO_WRITE ? $WRITE : $READ
			if $after->{id} == $id{kvm_mmio};
	}
	return;
}

# Makes $events[$i], a kvm_exit, one for VMGEXIT, if enough follows that can be replaced.
sub rewrite {
	my ($i, @events) = @_;
	my $exit = $events[$i];
	my $reason = reason_of($i, @events) // return;
	my ($size, $delta) = (0, 0);
	while ($size < $SIZE) {
		my $event = $events[++$i] // return;
		return if $event->{id} == 0 || $event->{tid} != $exit->{tid} ||
			grep { $event->{id} == $id{$_} } qw(kvm_exit kvm_entry kvm_mmio);
		$size += $event->{size};
		$delta += $event->{delta};
	}
	my $vcpu = unpack('V', substr($file, $exit->{at} + 4 + 56, 4));
	substr($file, $exit->{at} + 12, 4) = pack('V', $VMGEXIT);
	substr($file, $exit->{at} + $exit->{size}, $size) = pack('VvxxVVx4Q<Q<Q<',
		$delta << 5 | ($size - 4) / 4, $id{kvm_vmgexit_enter}, $exit->{tid}, $vcpu, $reason, 0, 0) .
		"\0" x ($size - $SIZE);
}

$file =~ /options  \0/ or die 'no options';
my $ncpus = unpack('V', substr($file, $-[0] - 4, 4));
$file =~ /flyrecord\0/ or die 'no flyrecord';
my @places = unpack('Q<*', substr($file, $+[0], 16 * $ncpus));
while (my ($offset, $size) = splice(@places, 0, 2)) {
	for (my $page = $offset; $page < $offset + $size; $page += 4096) {
		my @before = events($page);
		$before[$_]{id} == $id{kvm_exit} and rewrite($_, @before) for 0 .. $#before;
		for my $event ($silent ? events($page) : ()) {
			substr($file, $event->{at} + 4, 2) = "\xff\xff" if $event->{id} == $id{kvm_mmio};
		}
	}
}
print $file;
