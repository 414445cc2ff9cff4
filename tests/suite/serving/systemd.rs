//! What a service manager is told.

use std::os::unix::net::UnixDatagram;

use ktables_tests::server::{Server, write_config};
use ktables_tests::{TIMEOUT, ktables};
use tempfile::TempDir;

use super::SERVICES;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_learns_when_the_server_is_ready_lives_and_stops() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let receive = || {
        let mut bytes = [0; 1024];
        let len = socket.recv(&mut bytes).expect("a message in time");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    let receive_until = |wanted: &str| while !receive().lines().any(|line| line == wanted) {};
    let config = write_config(folder.path(), SERVICES);
    let mut command = ktables(&["serve", "--config", config.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let mut server = Server::start_command(command);
    receive_until("READY=1");
    assert_eq!(server.get("/readyz").await.status, 200);
    for _ in 0..3 {
        receive_until("WATCHDOG=1");
    }
    server.signal("TERM");
    receive_until("STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}
