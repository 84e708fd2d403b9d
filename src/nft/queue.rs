//! How this kernel can queue packets: found by trying, never assumed from its version.
//!
//! A rule with each expression is added to a table of its own, in a transaction whose last message
//! must fail: the kernel checks the rule, loads the modules it needs, and reverts everything
//! (net/netfilter/nfnetlink.c, `nfnetlink_rcv_batch`). Nothing is ever committed, no notification
//! is sent, and no other table is touched.

use rustix::io::Errno;

use super::conn::Connection;
use super::encode;
use super::error::Error;
use super::expr::Expr;
use super::lower::lower;
use super::model::{QueueBy, Rule, Statement};
use super::numbers::{NFPROTO_INET, SUBSYSTEM, attr, message};
use crate::netlink::message::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, Open, Writer};

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

    /// Whether the kernel accepts a rule of these expressions.
    fn accepts(&mut self, expressions: &[Expr]) -> Result<bool, Error> {
        let (mut asked, mut last) = (0, 0);
        // Not the schema's own table: another connection may own that one.
        let scratch = format!("{}_try", self.schema.table.name);
        let failures = self.try_transaction(None, |out, sequence| {
            let mut next = || std::mem::replace(sequence, sequence.wrapping_add(1));
            let open = |out: &mut Writer, kind, flags, sequence| {
                let message = begin(out, kind, flags, sequence);
                // For tables, chains and rules alike, the table's name is attribute 1.
                out.attr_str(attr::TABLE_NAME, &scratch);
                message
            };
            let table = open(out, message::NEWTABLE, NLM_F_CREATE, next());
            out.end_message(table);
            let chain = open(out, message::NEWCHAIN, NLM_F_CREATE, next());
            out.attr_str(attr::CHAIN_NAME, "c");
            out.end_message(chain);
            asked = next();
            let rule = open(out, message::NEWRULE, NLM_F_CREATE | NLM_F_APPEND, asked);
            out.attr_str(attr::RULE_CHAIN, "c");
            let list = out.begin_nest(attr::RULE_EXPRESSIONS);
            for expr in expressions {
                let nest = out.begin_nest(attr::LIST_ELEM);
                encode::expression(out, expr);
                out.end_nest(nest);
            }
            out.end_nest(list);
            out.end_message(rule);
            last = *sequence;
            // There is no such chain, so nothing is committed.
            let nothing = open(out, message::DELCHAIN, NLM_F_ACK, *sequence);
            out.attr_str(attr::CHAIN_NAME, "none");
            out.end_message(nothing);
        })?;
        let unknown = [Errno::NOENT, Errno::OPNOTSUPP, Errno::INVAL, Errno::PROTONOSUPPORT]
            .map(Errno::raw_os_error);
        match failures.unwrap_or_default().iter().find(|failure| failure.sequence != last) {
            None => Ok(true),
            Some(failure) if failure.sequence == asked && unknown.contains(&failure.errno) => {
                Ok(false)
            }
            // Not about the rule: missing rights, for one.
            Some(failure) => Err(Error::Apply {
                verb: "try",
                object: "a rule that queues".to_owned(),
                errno: failure.errno,
                message: None,
            }),
        }
    }
}

fn begin(out: &mut Writer, kind: u16, flags: u16, sequence: u32) -> Open {
    let message = out.begin_message((SUBSYSTEM << 8) | kind, NLM_F_REQUEST | flags, sequence);
    out.nfgenmsg(NFPROTO_INET, 0);
    message
}
