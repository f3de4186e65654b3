//! Reading one's own writes, on one node and on several.

mod wait_for;
