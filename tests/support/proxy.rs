//! A proxy between clients and a broker that observes every request and may change responses.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Observes requests and changes responses. Both are passed without their length prefix.
pub trait Interceptor: Send + Sync + 'static {
    /// Called when a connection begins.
    fn on_open(&self) {}
    /// Called when a connection has ended.
    fn on_close(&self) {}
    /// Called for each request before it is forwarded.
    fn on_request(&self, _request: &[u8]) {}
    /// Returns the response that the client receives. `request` begins with its API key and version.
    fn change_response(&self, _request: &[u8], response: Vec<u8>) -> Vec<u8> {
        response
    }
}

/// A proxy that clients connect to.
#[derive(Debug)]
pub struct Proxy {
    listener: Arc<TcpListener>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    /// The number of the first connection that is blocked.
    first_blocked: watch::Sender<usize>,
}

impl Proxy {
    /// Listens on a free port.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let first_blocked = watch::channel(usize::MAX).0;
        Self { listener: Arc::new(listener), connections: Arc::default(), first_blocked }
    }

    /// Returns the address as `HOST:PORT`.
    ///
    /// # Panics
    ///
    /// If the system does not return it.
    #[must_use]
    pub fn address(&self) -> String {
        self.listener.local_addr().expect("an address").to_string()
    }

    /// Forwards connections to a broker from now on.
    pub fn forward(&self, to: String, interceptor: Arc<impl Interceptor>) {
        let (listener, connections) = (self.listener.clone(), self.connections.clone());
        let first_blocked = self.first_blocked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, interceptor) = (to.clone(), interceptor.clone());
                let mut connections = lock(&connections);
                let gate = Gate { number: connections.len(), first_blocked: first_blocked.subscribe() };
                let relaying = tokio::spawn(async move {
                    let _connection = Connection::open(&*interceptor);
                    // OK to ignore: an error means that one end has closed the connection.
                    let _ = relay(client, &to, &*interceptor, gate).await;
                });
                connections.push(relaying.abort_handle());
            }
        });
    }

    /// Returns how many connections have been accepted, closed ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.connections).len()
    }

    /// Closes all connections. Clients may connect again.
    pub fn disconnect_all(&self) {
        lock(&self.connections).iter().for_each(AbortHandle::abort);
    }

    /// Blocks traffic on the connections from this number on, new ones included.
    pub fn block_from(&self, connection: usize) {
        self.first_blocked.send_replace(connection);
    }

    /// Unblocks all traffic.
    pub fn unblock(&self) {
        self.first_blocked.send_replace(usize::MAX);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delays the traffic of a connection while the proxy blocks it.
#[derive(Clone)]
struct Gate {
    number: usize,
    first_blocked: watch::Receiver<usize>,
}

impl Gate {
    async fn wait_until_open(&mut self) {
        let number = self.number;
        // OK to ignore: an error means that nothing is forwarded any more.
        let _ = self.first_blocked.wait_for(|&first| number < first).await;
    }
}

/// Reports the beginning of a connection, and its end when it is dropped.
struct Connection<'a, I: Interceptor>(&'a I);

impl<'a, I: Interceptor> Connection<'a, I> {
    fn open(interceptor: &'a I) -> Self {
        interceptor.on_open();
        Self(interceptor)
    }
}

impl<I: Interceptor> Drop for Connection<'_, I> {
    fn drop(&mut self) {
        self.0.on_close();
    }
}

async fn relay(client: TcpStream, to: &str, interceptor: &impl Interceptor, gate: Gate) -> io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // A broker answers the requests of a connection in their order.
    let pending = Mutex::new(VecDeque::new());
    let pending = || lock(&pending);
    let (mut in_gate, mut out_gate) = (gate.clone(), gate);
    let requests = async {
        loop {
            let request = read_frame(&mut from_client).await?;
            in_gate.wait_until_open().await;
            interceptor.on_request(&request);
            let bytes = add_length(&request);
            pending().push_back(request);
            to_server.write_all(&bytes).await?;
        }
    };
    let responses = async {
        loop {
            let response = read_frame(&mut from_server).await?;
            out_gate.wait_until_open().await;
            let request = pending().pop_front().unwrap_or_default();
            to_client.write_all(&add_length(&interceptor.change_response(&request, response))).await?;
        }
    };
    tokio::select! {
        result = requests => result,
        result = responses => result,
    }
}

/// Reads a request or a response: a length in four bytes, then that many bytes.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn add_length(bytes: &[u8]) -> Vec<u8> {
    // OK because no test makes a frame of 4 GiB.
    let length = u32::try_from(bytes.len()).expect("a short frame");
    [&length.to_be_bytes(), bytes].concat()
}
