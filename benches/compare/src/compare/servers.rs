//! Servers of shared state, started for a scene and ended with it.

use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{self, Guard};

/// A server that listens.
pub(crate) struct Server {
    _process: Guard,
    /// What its client is to be told.
    pub(crate) address: Vec<String>,
    /// Removed at the end.
    directory: Option<PathBuf>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Server {
    /// Starts the server of that name and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub(crate) fn start(name: &str) -> Result<Server, String> {
        match name {
            "redis" => Server::with_port("redis-server", |port, _| {
                let arguments =
                    ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"];
                arguments.into_iter().map(str::to_owned).chain([port]).collect()
            }),
            "nats" => Server::with_port("nats-server", |port, directory| {
                ["-a", "127.0.0.1", "-p", &port, "-js", "-sd", directory].map(str::to_owned).into()
            }),
            _ => {
                let mut command = child::contender();
                let (process, lines) = child::spawn(command.args(["serve", name]))?;
                let endpoints = child::expect(&lines, "endpoint ")?;
                let address = endpoints.split(' ').map(str::to_owned).collect();
                Ok(Server { _process: process, address, directory: None })
            }
        }
    }

    fn with_port(
        program: &str,
        arguments: impl Fn(String, &str) -> Vec<String>,
    ) -> Result<Server, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let directory = env::temp_dir().join(format!("compare-{program}-{}", address.port()));
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .args(arguments(address.port().to_string(), &directory.to_string_lossy()))
            .current_dir(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|_| format!("{program} is not installed"))?;
        let address = address.to_string();
        let server = Server {
            _process: Guard(child),
            address: vec![address.clone()],
            directory: Some(directory),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{program} does not listen"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}
