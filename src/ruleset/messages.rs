//! Messages for the administrator about kernels that cannot run our rules.

use crate::nft::Error;

/// The kernel cannot queue packets.
pub(crate) const NO_QUEUE: &str = "this kernel cannot let packets wait: it has neither nft_queue nor the xt target NFQUEUE; load the module nft_queue (in \
                            the package kernel-modules-extra on Fedora and RHEL, linux-modules-extra on Ubuntu), or set capture.method to nflog, \
                            which with capture.reflex stops a scan as well";

/// The kernel queues packets only by the xt target.
pub(crate) const QUEUE_BY_XT: &str = "this kernel has no nft_queue: packets are queued by the xt target NFQUEUE, which does the same; nft cannot load it, and may list it as a remark or not at all";

/// How errors name the rules of connect mode.
const DECOY_RULES: &str = "rule of chain decoy";

/// What to do about an error, to be appended to its text; empty if there is nothing to add.
pub(crate) fn remedy(error: &Error) -> &'static str {
    match error {
        // The kernel reports an expression that it does not know, and no module provides, as not
        // found.
        Error::Apply { object, .. }
            if object.starts_with(DECOY_RULES)
                && (error.is_not_found() || error.is_not_supported()) =>
        {
            "; connect mode needs the kernel modules nft_tproxy, nft_socket and nft_limit: install the package that has all modules of \
             this kernel (linux-modules-extra on Ubuntu, kernel-modules on Fedora and RHEL), or choose mode stealth"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn remedy_for(object: &str, errno: Errno) -> &'static str {
        remedy(&Error::Apply {
            verb: "add",
            object: object.to_owned(),
            errno: errno.raw_os_error(),
            message: None,
        })
    }

    #[test]
    fn error_without_tproxy_names_the_missing_modules() {
        assert!(remedy_for("rule of chain decoy_answer", Errno::NOENT).contains("nft_tproxy"));
        assert!(remedy_for("rule of chain decoy_answer", Errno::OPNOTSUPP).contains("nft_tproxy"));
        assert_eq!(remedy_for("rule of chain decoy_answer", Errno::PERM), "");
        assert_eq!(remedy_for("rule of chain watch", Errno::NOENT), "");
    }
}
