//! What this kernel can do: found by trying, never assumed from its version.
//!
//! A rule with the expressions in question is added to a table of its own, in a transaction whose last message
//! must fail: the kernel checks the rule, loads the modules it needs, and reverts everything
//! (net/netfilter/nfnetlink.c, `nfnetlink_rcv_batch`). Nothing is ever committed, no notification
//! is sent, and no other table is touched.

use rustix::io::Errno;

use super::conn::Connection;
use super::error::Error;
use super::expr::Expr;
use super::lower::lower;
use super::model::{Chain, QueueBy, Rule, Ruleset, Statement};
use super::numbers::{attr, message};
use crate::netlink::message::NLM_F_ACK;

impl Connection {
    /// The way in which this kernel queues packets, nf_tables' own expression preferred; `None` if
    /// it has neither.
    ///
    /// # Errors
    /// [`Error::Apply`] when it refuses for another reason, CAP_NET_ADMIN for one.
    pub fn queue_by(&mut self) -> Result<Option<QueueBy>, Error> {
        for by in [QueueBy::Native, QueueBy::Xt] {
            let rule = Rule {
                why: "",
                statements: vec![Statement::Queue { number: 0, bypass: true, by }],
            };
            if self.accepts(&lower(&rule))? {
                return Ok(Some(by));
            }
        }
        Ok(None)
    }

    /// The names of the expressions of these rules that the kernel does not have, each once.
    ///
    /// # Errors
    /// As [`Connection::queue_by`].
    pub fn lacking(&mut self, ruleset: &Ruleset) -> Result<Vec<&'static str>, Error> {
        let rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
        // Sets and chains, which others name, are not there.
        let alone = |expr: &Expr| {
            !matches!(expr, Expr::Lookup { .. } | Expr::Dynset { .. } | Expr::Verdict(_))
        };
        let mut expressions: Vec<(&'static str, Expr)> = Vec::new();
        for expr in rules.flat_map(lower).filter(alone) {
            if let Some(name) = expr.name()
                && expressions.iter().all(|(known, _)| *known != name)
            {
                expressions.push((name, expr));
            }
        }
        let mut lacking = Vec::new();
        for (name, expr) in expressions {
            if !self.accepts(&[expr])? {
                lacking.push(name);
            }
        }
        Ok(lacking)
    }

    /// Whether the kernel accepts a rule of these expressions.
    fn accepts(&mut self, expressions: &[Expr]) -> Result<bool, Error> {
        let (mut asked, mut last) = (0, 0);
        // Not the schema's own table: another connection may own that one.
        let scratch = format!("{}_try", self.schema.table.name);
        let failures = self.try_transaction(&scratch, None, |batch| {
            batch.new_table(0);
            batch.new_chain(&Chain { name: "c", base: None, rules: Vec::new() });
            asked = batch.sequence();
            batch.new_rule("c", expressions);
            last = batch.sequence();
            // There is no such chain, so nothing is committed.
            batch.of_object(message::DELCHAIN, NLM_F_ACK, attr::CHAIN_NAME, "none");
        })?;
        let unknown = [Errno::NOENT, Errno::OPNOTSUPP, Errno::INVAL, Errno::PROTONOSUPPORT]
            .map(Errno::raw_os_error);
        match failures.unwrap_or_default().iter().find(|failure| failure.sequence != last) {
            None => Ok(true),
            // It is known, and reads a register that nothing has written: newer kernels look
            // (nft_parse_register_load()).
            Some(failure)
                if failure.sequence == asked && failure.errno == Errno::NODATA.raw_os_error() =>
            {
                Ok(true)
            }
            Some(failure) if failure.sequence == asked && unknown.contains(&failure.errno) => {
                Ok(false)
            }
            // Not about the rule: missing rights, for one.
            Some(failure) => Err(Error::Apply {
                verb: "try",
                object: "a rule".to_owned(),
                errno: failure.errno,
                message: None,
            }),
        }
    }
}
