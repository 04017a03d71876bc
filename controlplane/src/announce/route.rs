//! Keeps routes to addresses in a table of the kernel that a routing daemon exports.
