//! Who a caller is and what it may do. Pure decisions over compiled data; no
//! configuration format and no I/O.

pub mod identity;
