#!/usr/bin/perl
# put.pl SHARD KEY VAL - from now on KEY has the one value VAL, whatever it had before and whoever else puts.
#
# This is the loop of a writer whose rows depend on those that are there: read the upper, read the rows, append at
# that upper, and begin anew if somebody else was faster. KEY and VAL are given as rows have them, escapes and all.
use strict;
use warnings;

my ($shard, $key, $val) = @ARGV;

sub slurp {
    open my $f, '<:raw', "$shard/$_[0]" or die "$_[0]: $!\n";
    my @lines = <$f>;
    close $f or die "$_[0]: $!\n";    # without this a file that broke off would be a short one
    return @lines;
}

while (1) {
    # The upper first: when somebody commits before the snapshot is opened, the append is refused.
    my ($upper) = join('', slurp('upper')) =~ /^(\d+)$/ or die "the shard is finished\n";
    my $rows = '';
    for (slurp('snapshot')) {
        chomp;
        my (undef, $diff, $k, $v) = split /\t/, $_, -1;
        $rows .= join("\t", $upper, -$diff, $k, $v) . "\n" if $k eq $key;
    }
    $rows .= "$upper\t1\t$key\t$val\n";

    open my $append, '>:raw', "$shard/append" or die "append: $!\n";
    my $text = "begin expected_upper=$upper new_upper=" . ($upper + 1) . "\n${rows}commit\n";
    # Both count: print fills a buffer, and whatever is left in it is written, and refused, by close.
    last if print($append $text) and close $append;
    $!{ESTALE} or die "append: $!\n";
}
