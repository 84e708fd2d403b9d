//! Expressions of rules, sets and elements, and values in them, as attributes.

use std::time::Duration;

use crate::netlink::message::Writer;
use crate::nft::expr::{Expr, VerdictCode};
use crate::nft::numbers::{
    FIB_ADDRTYPE, FIB_DADDR, FIB_SADDR, LIMIT_INVERT, VERDICT_GOTO, VERDICT_JUMP, VERDICT_RETURN,
    attr,
};

/// Name and data of an expression.
pub(super) fn expression(out: &mut Writer, expr: &Expr) {
    let name = match expr {
        Expr::Foreign { name, .. } => name,
        ours => ours.name().unwrap_or_default(),
    };
    out.attr_str(attr::EXPR_NAME, name);
    let nest = out.begin_nest(attr::EXPR_DATA);
    // The numbers are those of the expression's own attributes, in nf_tables.h.
    match expr {
        Expr::Meta { key, dreg } => {
            out.attr_be32(2, *key as u32);
            out.attr_be32(1, *dreg);
        }
        Expr::Payload { base, offset, len, dreg } => {
            out.attr_be32(1, *dreg);
            out.attr_be32(2, *base as u32);
            out.attr_be32(3, *offset);
            out.attr_be32(4, *len);
        }
        Expr::Ct { key, dreg } => {
            out.attr_be32(2, *key as u32);
            out.attr_be32(1, *dreg);
            if let Some(direction) = key.direction() {
                out.attr(3, &[direction]);
            }
        }
        Expr::FibType { saddr, dreg } => {
            out.attr_be32(3, if *saddr { FIB_SADDR } else { FIB_DADDR });
            out.attr_be32(2, FIB_ADDRTYPE);
            out.attr_be32(1, *dreg);
        }
        Expr::SocketTransparent { dreg } => {
            out.attr_be32(1, 0); // NFT_SOCKET_TRANSPARENT
            out.attr_be32(2, *dreg);
        }
        Expr::Random { modulus, dreg } => {
            out.attr_be32(1, *dreg);
            out.attr_be32(2, *modulus);
            out.attr_be32(3, 1); // NFT_NG_RANDOM
            out.attr_be32(4, 0);
        }
        Expr::RejectTcp => out.attr_be32(1, 1), // NFT_REJECT_TCP_RST
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            out.attr_be32(1, *sreg);
            out.attr_be32(2, *dreg);
            out.attr_be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            data(out, 4, mask);
            data(out, 5, xor);
        }
        Expr::Cmp { sreg, op, data: value } => {
            out.attr_be32(1, *sreg);
            out.attr_be32(2, *op as u32);
            data(out, 3, value);
        }
        Expr::Lookup { set, sreg, invert } => {
            out.attr_be32(2, *sreg);
            out.attr_str(1, set);
            out.attr_be32(5, u32::from(*invert)); // NFT_LOOKUP_F_INV
        }
        Expr::Dynset { update, set, sreg_key, timeout, each } => {
            out.attr_be32(4, *sreg_key);
            out.attr_be32(3, u32::from(*update)); // NFT_DYNSET_OP_ADD, _UPDATE
            out.attr_str(1, set);
            if let Some(timeout) = timeout {
                out.attr_be64(6, milliseconds(*timeout));
            }
            if let Some(each) = each {
                let nest = out.begin_nest(7);
                expression(out, each);
                out.end_nest(nest);
            }
        }
        Expr::Counter { packets, bytes } => {
            out.attr_be64(1, *bytes);
            out.attr_be64(2, *packets);
        }
        Expr::Log { prefix, group, snaplen, qthreshold } => {
            out.attr_str(2, prefix);
            out.attr_be16(1, *group);
            out.attr_be32(3, *snaplen);
            out.attr_be16(4, *qthreshold);
        }
        Expr::Queue { number, total, flags } => {
            out.attr_be16(1, *number);
            out.attr_be16(2, *total);
            out.attr_be16(3, *flags);
        }
        Expr::Target { name, revision, info } => {
            // linux/netfilter/nf_tables_compat.h, enum nft_target_attributes.
            out.attr_str(1, name);
            out.attr_be32(2, *revision);
            out.attr(3, info);
        }
        Expr::LimitOver { rate, per, burst } => {
            out.attr_be64(1, *rate);
            out.attr_be64(2, per.seconds());
            out.attr_be32(4, 0); // NFT_LIMIT_PKTS
            out.attr_be32(5, LIMIT_INVERT);
            out.attr_be32(3, *burst);
        }
        Expr::Immediate { dreg, data: value } => {
            out.attr_be32(1, *dreg);
            data(out, 2, value);
        }
        Expr::Tproxy { family, address, port } => {
            out.attr_be32(1, u32::from(*family));
            out.attr_be32(2, *address);
            out.attr_be32(3, *port);
        }
        Expr::Verdict(code) => {
            out.attr_be32(1, 0); // NFT_REG_VERDICT
            let value = out.begin_nest(2);
            let verdict = out.begin_nest(attr::DATA_VERDICT);
            let (number, chain) = match code {
                VerdictCode::Drop => (0, None),
                VerdictCode::Accept => (1, None),
                VerdictCode::Return => (VERDICT_RETURN, None),
                VerdictCode::Jump(chain) => (VERDICT_JUMP, Some(chain)),
                VerdictCode::Goto(chain) => (VERDICT_GOTO, Some(chain)),
            };
            out.attr_be32(attr::VERDICT_CODE, number);
            if let Some(chain) = chain {
                out.attr_str(attr::VERDICT_CHAIN, chain);
            }
            out.end_nest(verdict);
            out.end_nest(value);
        }
        Expr::Foreign { data, .. } => out.raw(data),
    }
    out.end_nest(nest);
}

/// A value in its nest.
pub(super) fn data(out: &mut Writer, kind: u16, value: &[u8]) {
    let nest = out.begin_nest(kind);
    out.attr(attr::DATA_VALUE, value);
    out.end_nest(nest);
}

/// nf_tables has timeouts in milliseconds; one below that is the smallest that is one.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
