//! The kernel's constants, for reading and writing: linux/netfilter/nf_tables.h, and nfnetlink.h
//! where noted.
//!
//! Constants only. `encode` builds messages, `decode` reads them.

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h).
pub const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
pub const NFPROTO_INET: u8 = 1;
/// `NFNL_MSG_BATCH_BEGIN`.
pub(super) const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub(super) const BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`.
pub mod message {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const NEWTABLE: u16 = 0;
    pub const GETTABLE: u16 = 1;
    pub const DELTABLE: u16 = 2;
    pub const NEWCHAIN: u16 = 3;
    pub const GETCHAIN: u16 = 4;
    pub const DELCHAIN: u16 = 5;
    pub const NEWRULE: u16 = 6;
    pub const GETRULE: u16 = 7;
    pub const DELRULE: u16 = 8;
    pub const NEWSET: u16 = 9;
    pub const GETSET: u16 = 10;
    pub const DELSET: u16 = 11;
    pub const NEWSETELEM: u16 = 12;
    pub const GETSETELEM: u16 = 13;
    pub const DELSETELEM: u16 = 14;
    pub const NEWGEN: u16 = 15;
    pub const GETGEN: u16 = 16;
    pub const NEWOBJ: u16 = 18;
    pub const GETOBJ: u16 = 19;
    pub const DELOBJ: u16 = 20;
    pub const NEWFLOWTABLE: u16 = 22;
    pub const GETFLOWTABLE: u16 = 23;
    pub const DELFLOWTABLE: u16 = 24;
}

/// `enum nft_*_attributes`, as far as they are used.
pub(super) mod attr {
    pub(crate) const TABLE_NAME: u16 = 1;
    pub(crate) const TABLE_FLAGS: u16 = 2;
    pub(crate) const TABLE_OWNER: u16 = 5;
    pub(crate) const CHAIN_NAME: u16 = 3;
    pub(crate) const CHAIN_HOOK: u16 = 4;
    pub(crate) const CHAIN_POLICY: u16 = 5;
    pub(crate) const CHAIN_TYPE: u16 = 7;
    pub(crate) const CHAIN_FLAGS: u16 = 10;
    pub(crate) const HOOK_NUM: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
    pub(crate) const RULE_CHAIN: u16 = 2;
    pub(crate) const RULE_EXPRESSIONS: u16 = 4;
    pub(crate) const SET_NAME: u16 = 2;
    pub(crate) const SET_FLAGS: u16 = 3;
    pub(crate) const SET_KEY_TYPE: u16 = 4;
    pub(crate) const SET_KEY_LEN: u16 = 5;
    pub(crate) const SET_DESC: u16 = 9;
    pub(crate) const SET_ID: u16 = 10;
    pub(crate) const SET_TIMEOUT: u16 = 11;
    pub(crate) const SET_USERDATA: u16 = 13;
    pub(crate) const SET_EXPR: u16 = 17;
    pub(crate) const SET_COUNT: u16 = 20;
    pub(crate) const DESC_SIZE: u16 = 1;
    pub(crate) const ELEMS_TABLE: u16 = 1;
    pub(crate) const ELEMS_SET: u16 = 2;
    pub(crate) const ELEMS_ELEMENTS: u16 = 3;
    pub(crate) const LIST_ELEM: u16 = 1;
    pub(crate) const ELEM_KEY: u16 = 1;
    pub(crate) const ELEM_FLAGS: u16 = 3;
    pub(crate) const ELEM_TIMEOUT: u16 = 4;
    pub(crate) const ELEM_EXPIRATION: u16 = 5;
    pub(crate) const ELEM_USERDATA: u16 = 6;
    pub(crate) const ELEM_EXPR: u16 = 7;
    pub(crate) const ELEM_EXPRESSIONS: u16 = 11;
    pub(crate) const DATA_VALUE: u16 = 1;
    pub(crate) const DATA_VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
    pub(crate) const EXPR_NAME: u16 = 1;
    pub(crate) const EXPR_DATA: u16 = 2;
    pub(crate) const OBJ_NAME: u16 = 2;
    pub(crate) const OBJ_TYPE: u16 = 3;
    pub(crate) const FLOWTABLE_NAME: u16 = 2;
    pub(crate) const GEN_ID: u16 = 1;
    pub(crate) const GEN_PROC_PID: u16 = 2;
    pub(crate) const GEN_PROC_NAME: u16 = 3;
}

/// `enum nft_table_flags`.
pub mod table_flag {
    /// Its hooks are off.
    pub const DORMANT: u32 = 1;
    /// Only the socket that made it may change it; since Linux 5.12.
    pub const OWNER: u32 = 2;
    /// It stays when that socket is closed; since Linux 6.9.
    pub const PERSIST: u32 = 4;
}

/// `enum nft_set_flags`.
pub mod set_flag {
    /// Belongs to one rule.
    pub const ANONYMOUS: u32 = 0x1;
    /// Its elements cannot change while a rule uses it.
    pub const CONSTANT: u32 = 0x2;
    /// Holds ranges.
    pub const INTERVAL: u32 = 0x4;
    /// A map: elements have a value, which may be a verdict.
    pub const MAP: u32 = 0x8;
    /// Elements may have timeouts.
    pub const TIMEOUT: u32 = 0x10;
    /// Rules add elements.
    pub const EVAL: u32 = 0x20;
}

/// `NFT_CHAIN_BINDING`: an implicit chain (`jump { ... }`) that belongs to one rule.
pub(super) const CHAIN_BINDING: u32 = 4;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const ELEM_INTERVAL_END: u32 = 1;
/// `NFTNL_UDATA_SET_KEYBYTEORDER` (libnftnl/udata.h): nft shows keys wrongly without it.
pub(super) const SET_UDATA_BYTEORDER: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`.
pub(super) const SET_UDATA_COMMENT: u8 = 7;
/// `NFTNL_UDATA_SET_ELEM_COMMENT`.
pub(super) const ELEM_UDATA_COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_ELEM_FLAGS`.
pub(super) const ELEM_UDATA_FLAGS: u8 = 1;
/// `SET_ELEM_F_INTERVAL_OPEN`: the interval reaches to the last key, so that no end follows.
pub(super) const INTERVAL_OPEN: u32 = 1;
/// `NF_ACCEPT`, as a chain's policy.
pub(super) const NF_ACCEPT: u32 = 1;
/// `NFT_RETURN` -5, `NFT_GOTO` -4, `NFT_JUMP` -3, as the kernel sends them.
pub(super) const VERDICT_RETURN: u32 = (-5_i32).cast_unsigned();
pub(super) const VERDICT_GOTO: u32 = (-4_i32).cast_unsigned();
pub(super) const VERDICT_JUMP: u32 = (-3_i32).cast_unsigned();
/// `NFT_LIMIT_F_INV`.
pub(super) const LIMIT_INVERT: u32 = 1;
/// `NFTA_FIB_F_SADDR`.
pub(super) const FIB_SADDR: u32 = 1;
/// `NFTA_FIB_F_DADDR`.
pub(super) const FIB_DADDR: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`.
pub(super) const FIB_ADDRTYPE: u32 = 3;
