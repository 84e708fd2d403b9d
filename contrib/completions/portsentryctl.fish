# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_portsentryctl_global_optspecs
    string join \n json socket= no-pager h/help V/version
end

function __fish_portsentryctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_portsentryctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_portsentryctl_using_subcommand
    set -l cmd (__fish_portsentryctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -s V -l version -d 'Print version'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "status" -d 'Show the daemon\'s status'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "metrics" -d 'Print the daemon\'s figures as metrics, in OpenMetrics'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "list" -d 'List the blocks'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "show" -d 'Show the state of an address and its past: what it probed, what counted, what was decided, and what it may still do'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "test" -d 'Say what would happen to packets of an address: whether it is blocked, slowed or never blocked, and what each port would answer'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "block" -d 'Block addresses or networks'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "unblock" -d 'Unblock addresses or networks, what is on a list, or everything'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "lists" -d 'List the lists that `block --list` blocked: their names, blocks and ends'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "allow" -d 'List or change the addresses and networks that are never blocked'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "history" -d 'List what happened: scans, slowed and blocked sources and their ends, an administrator\'s orders'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "report" -d 'Sum up what happened: scans over time, their ports, kinds, networks and sources, and what was slowed, proven and blocked'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "rules" -d 'Print the ruleset in force, as nft(8) reads it'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "check" -d 'Check a configuration file. The daemon need not run'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "import" -d 'Convert the files of PortSentry 1.2 or 2.x into a configuration. The daemon need not run'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "test-response" -d 'Run the responses to a scan once, as the daemon runs them, for 192.0.2.1: respond.command, and a line of hosts.deny, which is taken out again'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "reload" -d 'Reload the daemon\'s configuration'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "enforce" -d 'Block scans from now on, or confirm that they stay blocked'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "observe" -d 'Block nothing from now on, only report; or say what would have been blocked'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "off" -d 'Watch nothing until `on`; blocks stay in force'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "pause" -d 'Watch nothing for a time; blocks stay in force'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "on" -d 'Watch again'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "watch" -d 'Show events as they happen'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "top" -d 'Show on the whole terminal whether this host is protected, what is happening, and which sources are blocked and why; with keys to explain, unblock and allow them'
complete -c portsentryctl -n "__fish_portsentryctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand status" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand status" -l check -d 'Say in one line whether all is well, as a plugin of Nagios or Icinga does: exit status 0 is OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand status" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand status" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -l textfile -d 'Replace this file by them instead, in the format that node_exporter\'s textfile collector reads. A daemon that does not answer is not up there' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -l listen -d 'Serve them over HTTP at /metrics instead, until it is ended: 127.0.0.1:9477 or unix:/PATH' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -l anywhere -d 'Listen where other hosts can connect, too'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l since -d 'Only what began since then: 1h, 7d, a date (2026-11-20), or a time (2026-11-20T15:00)' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l net -d 'Only in this network, or around this address' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l country -d 'Only in these countries, by their codes: DE,CN. Needs a database (geo in the configuration)' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l asn -d 'Only in these autonomous systems: 64496,AS64497. Needs a database, too' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l sort -d 'The most packets first, the newest, the next to end, or by address' -r -f -a "packets\t'Dropped packets, the most first'
since\t'The beginning, the newest first'
until\t'The end, the next first'
address\t'The address'"
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l list -d 'Only what `block --list` blocked with this list' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l limit -d 'The first N only' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l would-be -d 'What observe mode would have blocked or slowed, instead'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l proven -d 'Only sources of scans whose address is proven'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l slowed -d 'Only slowed sources'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand show" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand show" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand show" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand show" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l from -d 'Also those in a file, one a line; `-`: standard input. What follows # or ; is a comment' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l list -d 'Put them on this list: what was on it and is in FILE no longer is unblocked, the others get the new end' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l for -d 'Duration: 30s, 2h, "1day 12h"; 0: permanent. Without it, the configured duration' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l reason -d 'The reason, shown in lists and in the log' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l add -d 'Let what is on the list and not in FILE stay on it'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l force -d 'Even if that may cut off an administrator\'s session, or this one'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand block" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -l list -d 'Unblock what is on this list; asks first on a terminal' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -l all -d 'Unblock everything; asks first on a terminal'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -l yes -d 'Do not ask'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand unblock" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand lists" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand lists" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand lists" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand lists" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -f -a "list" -d 'List what is never blocked, and why'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -f -a "add" -d 'Never block this from now on, and lift its block'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -f -a "remove" -d 'Undo `allow add`, or forget an administrator'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and not __fish_seen_subcommand_from list add remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from list" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from list" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from list" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from add" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from add" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from add" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from remove" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from remove" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from remove" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from help" -f -a "list" -d 'List what is never blocked, and why'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from help" -f -a "add" -d 'Never block this from now on, and lift its block'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Undo `allow add`, or forget an administrator'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand allow; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l since -d 'Only since then: 1h, 7d, a date (2026-11-20), or a time (2026-11-20T15:00, 2026-11-20T15:00:00Z)' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l until -d 'Only until then; a date includes its whole day' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l source -d 'Only of this address or network' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l port -d 'Only of this port: tcp/22, udp/53, 22' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l kind -d 'Only these kinds of events, separated by commas: scan, blocked, unblocked, order and others' -r -f -a "scan\t''
slowed\t''
continues\t''
proven\t''
released\t''
blocked\t''
renewed\t''
exempted\t''
unblocked\t''
block-failed\t''
unblock-failed\t''
campaign\t''
order\t''
command\t''
denied\t''
no-longer-denied\t''
commands-dropped\t''
notified\t''
starting\t''
stopping\t''
reloaded\t''
reload-refused\t''
switched\t''
adopted\t''
restored\t''
foreign-change\t''
lost\t''
shed\t''
not-stored\t''"
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l result -d 'Only with this result: blocked, slowed, reported, ended, done or failed' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l scan -d 'Only of this kind of scan: syn, udp, sweep and others' -r -f -a "connect\t''
syn\t''
fin\t''
null\t''
xmas\t''
maimon\t''
ack\t''
custom-flags\t''
udp\t''
sctp-init\t''
sctp-cookie-echo\t''
ip-protocol\t''
reply\t''
sweep\t''
ping-sweep\t''"
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l country -d 'Only in these countries, by their codes: DE,CN. Needs a database (geo in the configuration)' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l asn -d 'Only in these autonomous systems: 64496,AS64497. Needs a database, too' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l all -d 'Also what is about no source: starts, reloads, lost packets'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l csv -d 'Print comma-separated values (RFC 4180), with a header'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand history" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -l since -d 'Only since then: 1h, 7d, a date (2026-11-20), or a time (2026-11-20T15:00); without it, seven days' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -l until -d 'Only until then; a date includes its whole day' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -l html -d 'Write a page for a browser, in one file without scripts; `-`: to standard output' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand report" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand rules" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand rules" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand rules" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand rules" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand check" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand check" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand check" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand check" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l output -d 'The file to write. An existing one is never overwritten' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l default -d 'The settings of the init script, with TCP_MODE, PORTSENTRY_MODES or the like; without it the first that exists of /etc/default/portsentry, /etc/conf.d/portsentry, /etc/sysconfig/portsentry, and portsentry.modes beside the configuration' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l mode -d 'A mode of the old program, as on its command line: tcp, stcp, atcp, udp, sudp or audp (1.2), connect or stealth (2.x). May be given twice' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l print -d 'Write to standard output instead'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test-response" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test-response" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test-response" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand test-response" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand reload" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand reload" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand reload" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand enforce" -l confirm -d 'Observe again after this time, unless it is confirmed by then: `enforce` without it' -r
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand enforce" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand enforce" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand enforce" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand enforce" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and not __fish_seen_subcommand_from report help" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and not __fish_seen_subcommand_from report help" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and not __fish_seen_subcommand_from report help" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and not __fish_seen_subcommand_from report help" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and not __fish_seen_subcommand_from report help" -f -a "report" -d 'Show what would have been blocked or slowed since observing began, and what of it an administrator should look at first'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and not __fish_seen_subcommand_from report help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and __fish_seen_subcommand_from report" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and __fish_seen_subcommand_from report" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and __fish_seen_subcommand_from report" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and __fish_seen_subcommand_from report" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and __fish_seen_subcommand_from help" -f -a "report" -d 'Show what would have been blocked or slowed since observing began, and what of it an administrator should look at first'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand observe; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand off" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand off" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand off" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand off" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand pause" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand pause" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand pause" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand pause" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand on" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand on" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand on" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand on" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand watch" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand watch" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand watch" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand watch" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand top" -l socket -d 'The daemon\'s control socket' -r -F
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand top" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand top" -l no-pager -d 'Print long output on a terminal without a pager'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand top" -s h -l help -d 'Print help'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "status" -d 'Show the daemon\'s status'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "metrics" -d 'Print the daemon\'s figures as metrics, in OpenMetrics'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "list" -d 'List the blocks'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "show" -d 'Show the state of an address and its past: what it probed, what counted, what was decided, and what it may still do'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "test" -d 'Say what would happen to packets of an address: whether it is blocked, slowed or never blocked, and what each port would answer'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "block" -d 'Block addresses or networks'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "unblock" -d 'Unblock addresses or networks, what is on a list, or everything'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "lists" -d 'List the lists that `block --list` blocked: their names, blocks and ends'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "allow" -d 'List or change the addresses and networks that are never blocked'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "history" -d 'List what happened: scans, slowed and blocked sources and their ends, an administrator\'s orders'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "report" -d 'Sum up what happened: scans over time, their ports, kinds, networks and sources, and what was slowed, proven and blocked'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "rules" -d 'Print the ruleset in force, as nft(8) reads it'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "check" -d 'Check a configuration file. The daemon need not run'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "import" -d 'Convert the files of PortSentry 1.2 or 2.x into a configuration. The daemon need not run'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "test-response" -d 'Run the responses to a scan once, as the daemon runs them, for 192.0.2.1: respond.command, and a line of hosts.deny, which is taken out again'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "reload" -d 'Reload the daemon\'s configuration'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "enforce" -d 'Block scans from now on, or confirm that they stay blocked'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "observe" -d 'Block nothing from now on, only report; or say what would have been blocked'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "off" -d 'Watch nothing until `on`; blocks stay in force'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "pause" -d 'Watch nothing for a time; blocks stay in force'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "on" -d 'Watch again'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "watch" -d 'Show events as they happen'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "top" -d 'Show on the whole terminal whether this host is protected, what is happening, and which sources are blocked and why; with keys to explain, unblock and allow them'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and not __fish_seen_subcommand_from status metrics list show test block unblock lists allow history report rules check import test-response reload enforce observe off pause on watch top help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and __fish_seen_subcommand_from allow" -f -a "list" -d 'List what is never blocked, and why'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and __fish_seen_subcommand_from allow" -f -a "add" -d 'Never block this from now on, and lift its block'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and __fish_seen_subcommand_from allow" -f -a "remove" -d 'Undo `allow add`, or forget an administrator'
complete -c portsentryctl -n "__fish_portsentryctl_using_subcommand help; and __fish_seen_subcommand_from observe" -f -a "report" -d 'Show what would have been blocked or slowed since observing began, and what of it an administrator should look at first'
