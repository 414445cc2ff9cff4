//! A proxy between clients and a broker that sees every request and may change answers.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What is done to what goes through. Requests and answers are without their length.
pub trait Between: Send + Sync + 'static {
    /// A connection begins.
    fn opened(&self) {}
    /// A connection has ended.
    fn closed(&self) {}
    /// A request is on its way.
    fn request(&self, _request: &[u8]) {}
    /// The response that the client gets; `request` begins with its API key and version.
    fn answer(&self, _request: &[u8], answer: Vec<u8>) -> Vec<u8> {
        answer
    }
}

/// Where clients connect.
#[derive(Debug)]
pub struct Proxy {
    listener: Arc<TcpListener>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    /// From which connection on nothing goes through.
    held: watch::Sender<usize>,
}

impl Proxy {
    /// Takes a free port.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let held = watch::channel(usize::MAX).0;
        Self { listener: Arc::new(listener), connections: Arc::default(), held }
    }

    /// `HOST:PORT`.
    ///
    /// # Panics
    ///
    /// If the system does not say.
    #[must_use]
    pub fn address(&self) -> String {
        self.listener.local_addr().expect("an address").to_string()
    }

    /// Forwards connections to a broker from now on.
    pub fn forward(&self, to: String, between: Arc<impl Between>) {
        let (listener, connections) = (self.listener.clone(), self.connections.clone());
        let held = self.held.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, between) = (to.clone(), between.clone());
                let mut connections = lock(&connections);
                let gate = Gate { number: connections.len(), held: held.subscribe() };
                let relaying = tokio::spawn(async move {
                    let _connection = Connection::open(&*between);
                    // Ends when either end does.
                    let _ = relay(client, &to, &*between, gate).await;
                });
                connections.push(relaying.abort_handle());
            }
        });
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.connections).len()
    }

    /// Ends all connections. Clients may connect anew.
    pub fn cut(&self) {
        lock(&self.connections).iter().for_each(AbortHandle::abort);
    }

    /// Lets nothing through on connections from this one on, nor on new ones.
    pub fn hold_from(&self, connection: usize) {
        self.held.send_replace(connection);
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.held.send_replace(usize::MAX);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stops a connection's traffic while it is held.
#[derive(Clone)]
struct Gate {
    number: usize,
    held: watch::Receiver<usize>,
}

impl Gate {
    async fn pass(&mut self) {
        let number = self.number;
        // An error means that there is no proxy any more.
        let _ = self.held.wait_for(|&from| number < from).await;
    }
}

/// A connection, until it is dropped.
struct Connection<'a, B: Between>(&'a B);

impl<'a, B: Between> Connection<'a, B> {
    fn open(between: &'a B) -> Self {
        between.opened();
        Self(between)
    }
}

impl<B: Between> Drop for Connection<'_, B> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

async fn relay(client: TcpStream, to: &str, between: &impl Between, gate: Gate) -> io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // A broker answers in the order in which it was asked.
    let asked = Mutex::new(VecDeque::new());
    let asked = || lock(&asked);
    let (mut in_gate, mut out_gate) = (gate.clone(), gate);
    let requests = async {
        loop {
            let request = frame(&mut from_client).await?;
            in_gate.pass().await;
            between.request(&request);
            let bytes = framed(&request);
            asked().push_back(request);
            to_server.write_all(&bytes).await?;
        }
    };
    let answers = async {
        loop {
            let answer = frame(&mut from_server).await?;
            out_gate.pass().await;
            let request = asked().pop_front().unwrap_or_default();
            to_client.write_all(&framed(&between.answer(&request, answer))).await?;
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}

/// A request or a response: a length in four bytes, then that many bytes.
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    // OK because it came with such a length.
    let length = u32::try_from(bytes.len()).expect("a short frame");
    [&length.to_be_bytes(), bytes].concat()
}
