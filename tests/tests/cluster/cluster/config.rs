//! Shunt's configuration, as scenarios change it.

use std::fs;
use std::process::Command;

use shunt_tests::command;
use shunt_tests::error::{Error, Result, While};
use toml::{Table, Value};

use super::{Cluster, script};

/// A pool of addresses: its name, its addresses, and other keys as in the configuration.
pub type Pool<'a> = (&'a str, &'a [&'a str], &'a str);

impl Cluster {
    /// Calls `work` while Shunt has another configuration, and gives it back its own.
    pub fn with_config<T>(
        &self,
        change: impl FnOnce(&mut Table),
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let usual = self.config()?;
        let mut table: Table = usual.parse().map_err(|error| Error::Wrong(format!("shunt.toml: {error}")))?;
        change(&mut table);
        self.configure(&table.to_string())?;
        let outcome = work();
        self.configure(&usual)?;
        outcome
    }

    /// Calls `work` while addresses come from these pools.
    pub fn with_pools<T>(&self, pools: &[Pool], work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.with_config(|table| set_pools(table, pools), work)
    }

    /// Gives Shunt other pools from now on; for use inside of [`Self::with_pools`].
    pub fn set_pools(&self, pools: &[Pool]) -> Result<()> {
        let mut table: Table =
            self.config()?.parse().map_err(|error| Error::Wrong(format!("shunt.toml: {error}")))?;
        set_pools(&mut table, pools);
        self.configure(&table.to_string())
    }

    /// Shunt's configuration as it is.
    pub fn config(&self) -> Result<String> {
        fs::read_to_string(self.state.join("shunt.toml")).to(|| "read Shunt's configuration".to_owned())
    }

    fn configure(&self, text: &str) -> Result<()> {
        fs::write(self.state.join("shunt.toml"), text).to(|| "write Shunt's configuration".to_owned())?;
        command::run(Command::new(script("lbctl.sh")).env("P", &self.prefix).arg("reload")).map(drop)
    }
}

fn set_pools(table: &mut Table, pools: &[Pool]) {
    let pool = |(name, addresses, more): &Pool| {
        let mut pool: Table = more.parse().expect("keys of a pool are TOML");
        let addresses = addresses.iter().map(|address| Value::from(*address)).collect();
        pool.insert("name".into(), (*name).into());
        pool.insert("addresses".into(), Value::Array(addresses));
        Value::Table(pool)
    };
    if let Some(cluster) = table.get_mut("kubernetes").and_then(Value::as_table_mut) {
        cluster.insert("pools".into(), Value::Array(pools.iter().map(pool).collect()));
    }
}
