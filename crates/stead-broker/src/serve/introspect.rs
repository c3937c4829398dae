//! Varlink's own interface: what the service is, and how it is called.

use serde::Deserialize;
use serde_json::{Value, json};
use stead_protocol::{Failure, FailureKind, INTERFACE, NAME};

use super::answer::Answer;

const OWN_NAME: &str = "org.varlink.service";

/// <https://varlink.org/Service>.
const OWN: &str = "\
# The Varlink Service Interface is provided by every varlink service. It describes the service and the interfaces it
# implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found.
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access.
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't.
error ExpectedMore ()
";

/// The answer to a call of Varlink's own interface; `None` for any other.
pub(super) fn answer(method: &str, parameters: Option<&str>) -> Option<Result<Answer, Failure>> {
    let found = match method.strip_prefix(OWN_NAME)?.strip_prefix('.')? {
        "GetInfo" => Ok(json!({
            "vendor": "stead",
            "product": "stead",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": [OWN_NAME, NAME],
        })),
        "GetInterfaceDescription" => description(parameters),
        _ => Err(FailureKind::MethodNotFound { method: method.to_owned() }),
    };
    Some(match found {
        Ok(parameters) => Ok(Answer { parameters, descriptors: Vec::new(), of_files: false }),
        Err(kind) => Err(kind.while_doing("")),
    })
}

fn description(parameters: Option<&str>) -> Result<Value, FailureKind> {
    #[derive(Deserialize)]
    struct Parameters {
        interface: String,
    }
    let Parameters { interface } = serde_json::from_str(parameters.unwrap_or("{}"))
        .map_err(|error| FailureKind::InvalidParameter { parameter: error.to_string() })?;
    match interface.as_str() {
        NAME => Ok(json!({ "description": INTERFACE })),
        OWN_NAME => Ok(json!({ "description": OWN })),
        _ => Err(FailureKind::InterfaceNotFound { interface }),
    }
}

/// A method that is in no table.
pub(super) fn unknown(method: &str) -> Failure {
    let (interface, _) = method.rsplit_once('.').unwrap_or(("", method));
    let kind = if interface == NAME {
        FailureKind::MethodNotFound { method: method.to_owned() }
    } else {
        FailureKind::InterfaceNotFound { interface: interface.to_owned() }
    };
    kind.while_doing("")
}
