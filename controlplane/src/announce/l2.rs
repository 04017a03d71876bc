//! Answers for addresses on the segments of the NICs.
