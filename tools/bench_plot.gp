# Draws what `make bench` measured: gnuplot -e "dir='build/bench'" tools/bench_plot.gp
set terminal svg size 1100,520 font "sans,12" background "white"
set grid
set datafile missing "nan"
set key autotitle columnhead outside right top Left reverse

# Of each kind a block: 1/(1-q), and the microseconds that a part q of the appends did not exceed.
file = dir.'/append.dat'
if (int(system('test -s '.file.' && echo 1 || echo 0'))) {
	stats file using 2 nooutput
	set output dir.'/latency.svg'
	set title "Durable appends of one row by one client: latency by percentile"
	set logscale xy
	set xtics ("50 %%" 2, "90 %%" 10, "99 %%" 100, "99.9 %%" 1000)
	set ylabel "µs"
	floors = STATS_blocks - 3 # the last three: dashed
	plot for [i=0:STATS_blocks-1] file index i using 1:2 with lines linewidth 2 \
		dashtype 1 + (i >= floors) linecolor i + 1 - (i < floors ? 0 : floors)
}

# Of each kind a block: clients, median, least, most.
do for [name in "clients blind"] {
	file = dir.'/'.name.'.dat'
	if (int(system('test -s '.file.' && echo 1 || echo 0'))) {
		stats file using 2 nooutput
		set output dir.'/'.name.'.svg'
		set title name eq "clients" ? "Durable appends by clients, a shard each" : \
			"Blind durable appends by clients, one shard for all"
		set logscale x 2
		unset logscale y
		set xtics (1, 2, 4, 8, 16)
		set xrange [0.9:18]
		set yrange [0:*]
		set xlabel "clients"
		set ylabel "appends per second"
		plot for [i=0:STATS_blocks-1] file index i using 1:2:3:4 with yerrorlines linewidth 2 pointtype 7 pointsize 0.5
	}
}

# A line of titles, then of each kind a line: name, import, read.
file = dir.'/bulk.dat'
if (int(system('test -s '.file.' && echo 1 || echo 0'))) {
	set output dir.'/bulk.svg'
	set title "A transaction of a million rows: seconds to take it, and to give it back summed and sorted"
	unset logscale
	unset xlabel
	set xrange [*:*]
	set yrange [0:*]
	set xtics autofreq
	set ylabel "seconds"
		set style data histograms
	set style histogram clustered gap 1
	set style fill solid 0.8 border -1
	plot file using 2:xtic(1), '' using 3
}
