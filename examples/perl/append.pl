#!/usr/bin/perl
# append.pl SHARD EXPECTED_UPPER NEW_UPPER [ROWS] - commit the rows of a file, or of stdin, as one transaction.
#
# Exit status: 0 it is committed; 75 the upper was another one, nothing was changed; 1 all else. The verdict of
# the shard is on stderr when it is not 0.
use strict;
use warnings;
use IO::Handle;

sub fail { my ($status, $why) = @_; print STDERR "append.pl: $why\n"; exit $status }

my ($shard, $expected, $new, $file) = @ARGV;
my $rows = \*STDIN;
if (defined $file) { open $rows, '<:raw', $file or fail(1, "$file: $!") }

# For reading too: the descriptor that takes a transaction gives the verdict on it.
open my $append, '+<:raw', "$shard/append" or fail(1, "$shard/append: $!");

# print fills a buffer; its result tells of an earlier piece, and that of flush of the last one. Both count.
my $written = print $append "begin expected_upper=$expected new_upper=$new\n";
my $n = 1;
while ($written and $n = read $rows, my $piece, 65536) { $written = print $append $piece }
fail(1, "the rows: $!") unless defined $n;    # and so no commit: half of them is not what was asked for
$written &&= print $append "commit\n";
$written &&= $append->flush;
my $why = $written ? 'not committed: is the last row whole?' : $!;

# That all was written is no proof: when the last row lacks its newline, the word commit belongs to that row,
# and there is no verdict.
sysread $append, my $verdict, 65536;
close $append;
exit 0 if $written and $verdict =~ /^ok /;
chomp $verdict;
fail($verdict =~ /^error \w+ errno=ESTALE / ? 75 : 1, $verdict || $why);
