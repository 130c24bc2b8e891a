"""The errors of the sandbox's API, with the documents' codes, statuses and texts.

Sources: VoipNow wiki, HTTP Return Codes, and the failure tables of the requests. Texts that we
could not see there are ours.
"""

_TEXTS = {
    "access_denied": "You are not authorized to perform this request.",
    "user_invalid": "The userId must be a user's id, @me, @viewer or @owner.",
    "extension_invalid": "The extension must be the number of an existing extension of the kind "
    "that this request is for; @self only where it is allowed.",
    "internal_server_error": "The server failed.",
    "request_not_implemented": "This request is not implemented.",
    "request_invalid": "The body must be a JSON object.",  # our own code: none is documented
    "fields_invalid": "fields must be names of the resource's fields, separated by commas.",
    "count_invalid": "count must be a number from 1 to 4999.",
    "startindex_invalid": "startIndex must be a number from 0 to 4999.",
    "filterby_invalid": "filterBy must be the name of a field that can be filtered by.",
    "filterop_invalid": "filterOp must be equals, contains, startsWith (starts with), "
    "inArray or present.",
    "filtervalue_invalid": "filterValue must be a text, and an array only with inArray.",
    "sortorder_invalid": "sortOrder must be ascending, descending, asc or desc.",
    "pce_type_invalid": "The type must be 0, 1, 2, 3 or 4.",
    "pce_method_invalid": "The method must be 0 or 1.",
    "pce_id_invalid": "The id must be that of an existing phone call event.",
    "pce_url_invalid": "The url must be a http or https URL, encoded as RFC 3986 has it.",
    "pce_status_invalid": "The status must be 0 or 1.",
    "pce_note_invalid": "The note must be a text.",
    "status_invalid": "The status must be 0, 1 or 2.",
    "qag_agent_invalid": "The agent must be one of this queue.",
    # The failure table of Create Simple PhoneCalls was not visible: these two codes are ours.
    "phonecall_source_invalid": "The source must be an array of extensions or public numbers.",
    "phonecall_destination_invalid": "The destination must be an array of extensions or public "
    "numbers.",
    "cdr_start_date_invalid": "startDate must have the format YYYY-MM-DDThh:mm:ss.",
    "cdr_end_date_invalid": "endDate must have the format YYYY-MM-DDThh:mm:ss.",
    "cdr_save_start_date_invalid": "saveStartDate must have the format YYYY-MM-DDThh:mm:ss.",
    "cdr_save_end_date_invalid": "saveEndDate must have the format YYYY-MM-DDThh:mm:ss.",
    "cdr_invalid_date_parameters": "The start date is greater than the end date.",
    "cdr_source_invalid": "The source must be an extended extension number or a public number.",
    "cdr_destination_invalid": "The destination must be an extended extension number or a public "
    "number.",
    "cdr_flow_invalid": "The flow must be 2, 4 or 8.",
    "cdr_disposition_invalid": "The disposition must be 0, 1, 2, 3, 4 or 5.",
    "cdr_invalid_filter_by_answered": "The filterValue must have the format YYYY-MM-DDThh:mm:ss.",
    "cdr_invalid_filter_by_published": "The filterValue must have the format YYYY-MM-DDThh:mm:ss.",
    "cdr_invalid_filter_by_source": "The filterValue must be a number.",
    "cdr_invalid_filter_by_destination": "The filterValue must be a number.",
}

_STATUSES = {"access_denied": 401, "internal_server_error": 500, "request_not_implemented": 501}


class Refused(Exception):
    """The API answers with an error.

    Args:
        code: a documented code, or `request_invalid`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.status = _STATUSES.get(code, 400)
        self.body = {"error": {"code": code, "message": _TEXTS[code]}}
