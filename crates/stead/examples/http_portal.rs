//! The same server as `http_run`, without any privilege: it runs the caller's command as the caller through stead's
//! service, which has the privileges, and whose policy says for which clients.
//!
//! `http_portal SOCKET` as an ordinary user, whom the policy entitles:
//!
//! ```toml
//! [[allow]]
//! callers = { users = ["portal"] }
//! clients = { groups = ["staff"] }
//! privileges = ["impersonate", "assign-primary-token"]
//! programs = "any"
//! ```
//!
//! Then as anybody: `curl --unix-socket SOCKET -d 'id -un' http://server/`. The line that differs is marked below.

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    portal::main()
}

/// The service is for Linux so far.
#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
mod portal {
    use std::convert::Infallible;
    use std::error::Error;

    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response, StatusCode};
    use hyper_util::rt::TokioIo;
    use stead::{Client, Command, ErrorKind, Primary, Service, Token};
    use tokio::net::{UnixListener, UnixStream};

    #[tokio::main(flavor = "current_thread")]
    pub async fn main() -> Result<(), Box<dyn Error>> {
        let path = std::env::args().nth(1).ok_or("usage: http_portal SOCKET")?;
        let service = Service::connect()?;
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        loop {
            let (connection, _) = listener.accept().await?;
            // Who it is comes from the connection; nothing in a request can change it.
            let client = service.client_of(&connection, &listener); // without the service: Client::of(&connection)
            tokio::spawn(serve(connection, client));
        }
    }

    async fn serve(connection: UnixStream, client: stead::Result<Client>) {
        // The service looks at the client's process: not waited for on the runtime's thread.
        let token = tokio::task::spawn_blocking(|| client?.token()?.to_primary()).await;
        let Ok(token) = token else { return };
        let service = service_fn(|request| answer(request, &token));
        if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await {
            eprintln!("{error}");
        }
    }

    async fn answer(
        request: Request<Incoming>,
        token: &stead::Result<Token<Primary>>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, body) = match token {
            Err(refused) => (StatusCode::FORBIDDEN, format!("{refused}\n").into()),
            Ok(token) => match run(request, token).await {
                Ok(output) => (StatusCode::OK, output),
                Err(error) => (status(&*error), format!("{error}\n").into()),
            },
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        Ok(response)
    }

    fn status(error: &(dyn Error + 'static)) -> StatusCode {
        match error.downcast_ref::<stead::Error>().map(stead::Error::kind) {
            Some(ErrorKind::PolicyDenied { .. }) => StatusCode::FORBIDDEN,
            Some(ErrorKind::ServiceUnavailable { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    async fn run(request: Request<Incoming>, token: &Token<Primary>) -> Result<Vec<u8>, Box<dyn Error>> {
        let body = String::from_utf8(request.into_body().collect().await?.to_bytes().into())?;
        let mut words = body.split_whitespace();
        let program = words.next().ok_or("the body names no program")?;
        let output = Command::new(program).args(words).output_as_async(token).await?;
        Ok([output.stdout, output.stderr].concat())
    }
}
