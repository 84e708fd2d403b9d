# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_portsentry_global_optspecs
    string join \n config= check print-config print-rules h/help V/version
end

function __fish_portsentry_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_portsentry_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_portsentry_using_subcommand
    set -l cmd (__fish_portsentry_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c portsentry -n "__fish_portsentry_needs_command" -l config -d 'The configuration file [default: /etc/portsentry/portsentry.yaml; built-in defaults if that is missing]' -r -F
complete -c portsentry -n "__fish_portsentry_needs_command" -l check -d 'Check the configuration, show every finding, and end: 0 if it is good, 78 if not'
complete -c portsentry -n "__fish_portsentry_needs_command" -l print-config -d 'Print the configuration in force, defaults included, and end'
complete -c portsentry -n "__fish_portsentry_needs_command" -l print-rules -d 'Print the nftables ruleset that this configuration gives, and end'
complete -c portsentry -n "__fish_portsentry_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c portsentry -n "__fish_portsentry_needs_command" -s V -l version -d 'Print version'
complete -c portsentry -n "__fish_portsentry_needs_command" -f -a "replay" -d 'Show which sources of captured packets would have been detected, slowed and blocked'
complete -c portsentry -n "__fish_portsentry_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -l config -d 'The configuration file [default: /etc/portsentry/portsentry.yaml; built-in defaults if that is missing]' -r -F
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -l local -d 'An address or network of the host that was captured; may be repeated. Without it, the likeliest address of each IP version is taken, and shown' -r
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -l answer-within -d 'A port that has not answered after this time counts as closed' -r
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -l json -d 'Print JSON: one document with stable keys'
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -l jsonl -d 'Print the events that the daemon would have logged, a JSON object on each line'
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c portsentry -n "__fish_portsentry_using_subcommand replay" -s V -l version -d 'Print version'
complete -c portsentry -n "__fish_portsentry_using_subcommand help; and not __fish_seen_subcommand_from replay help" -f -a "replay" -d 'Show which sources of captured packets would have been detected, slowed and blocked'
complete -c portsentry -n "__fish_portsentry_using_subcommand help; and not __fish_seen_subcommand_from replay help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
