//! Messages for the administrator about kernels that cannot run our rules.

/// The kernel cannot queue packets.
pub(crate) const NO_QUEUE: &str = "this kernel cannot let packets wait: it has neither nft_queue nor the xt target NFQUEUE; load the module nft_queue (in \
                            the package kernel-modules-extra on Fedora and RHEL, linux-modules-extra on Ubuntu), or set capture.method to nflog, \
                            which with capture.reflex stops a scan as well";

/// The kernel queues packets only by the xt target.
pub(crate) const QUEUE_BY_XT: &str = "this kernel has no nft_queue: packets are queued by the xt target NFQUEUE, which does the same; nft cannot load it, and may list it as a remark or not at all";

/// What to do about a kernel without these expressions, to be appended to its error.
pub(crate) fn remedy(lacking: &[&str]) -> String {
    let modules = |name: &&str| match *name {
        "fib" => "fib (nft_fib_inet, nft_fib_ipv4, nft_fib_ipv6)".to_owned(),
        "reject" => "reject (nft_reject_inet)".to_owned(),
        name => format!("{name} (nft_{name})"),
    };
    let names: Vec<String> = lacking.iter().map(modules).collect();
    let mut text = format!(
        "this kernel does not know what the rules need: {}; install the package that has all modules of this kernel \
         (linux-modules-extra on Ubuntu, kernel-modules-core and kernel-modules-extra on Fedora and RHEL)",
        names.join(", ")
    );
    if lacking.contains(&"tproxy") {
        text.push_str(", or choose mode stealth");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_expression_is_named_with_its_modules() {
        let text = remedy(&["fib", "socket"]);
        assert!(text.contains("fib (nft_fib_inet, ") && text.contains("socket (nft_socket)"));
        assert!(!text.contains("mode stealth") && remedy(&["tproxy"]).contains("mode stealth"));
    }
}
