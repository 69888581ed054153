//! Starts and kills the processes of the site.

use std::{
    env, io,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use crate::servers::{Servers, free_ports};

/// All processes of the site. Dropping it kills them.
pub(crate) struct Site {
    pub(crate) servers: Servers,
    pub(crate) webs: Vec<Process>,
    pub(crate) workers: Vec<Process>,
    addresses: Vec<SocketAddr>,
}

/// A process that can be killed and restarted.
pub(crate) struct Process {
    command: Command,
    child: Child,
}

impl Site {
    pub(crate) fn start(servers: Servers) -> io::Result<Self> {
        let nats = servers.url();
        let ports = free_ports(2);
        let addresses = ports
            .into_iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let addresses: Vec<SocketAddr> = addresses.collect();
        let webs = addresses
            .iter()
            .map(|address| Process::start(&["web", &nats, &address.to_string()]));
        let workers = (0..2).map(|_| Process::start(&["worker", &nats]));
        Ok(Self {
            webs: webs.collect::<Result<_, _>>()?,
            workers: workers.collect::<Result<_, _>>()?,
            servers,
            addresses,
        })
    }

    /// Returns the addresses of the web processes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }
}

impl Process {
    fn start(arguments: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn()?;
        Ok(Self { command, child })
    }

    /// Kills the process as `kill -9` does, without a chance to shut down.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.child = self.command.spawn()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
