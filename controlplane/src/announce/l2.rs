mod arp;
mod conflicts;
mod election;
mod frame;
mod ndp;
mod schedule;
mod vrrp;
